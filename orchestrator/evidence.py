"""From the store to what estimators and scores take: arrays of finished runs, reference models."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from estimators.contract import Evidence, Reference, Runs
from orchestrator import requirements
from orchestrator.designs.permutations import Permutations
from orchestrator.plan import DesignPlan
from orchestrator.store import DONE, RunStore
from orchestrator.sweep import Sweep


def load_runs(sweep: Sweep, store: RunStore, design: str, measure: str) -> Runs:
    """Return the finished runs of one design, seen through one measure."""
    done = store.states(design) == DONE
    subsets = store.subsets(design)[done].astype(np.int64)
    return Runs(
        design,
        store.designs[design].kind,
        measure,
        store.masks(design)[done],
        store.outputs(design, measure)[done],
        subsets,
        store.repeats(design)[done].astype(np.int64),
        *_chains(sweep.plans[design], subsets),
    )


def empty_outputs(sweep: Sweep, measure: str) -> NDArray[np.float32] | None:
    """Return the outputs (t,) of a model of no data, where the task tells them (`measure_empty`)."""
    hook = getattr(sweep.task, "measure_empty", None)
    if hook is None or measure not in (told := hook()):
        return None
    return np.asarray(told[measure], dtype=np.float32)[sweep.queries.take(len(told[measure]))]


def _chains(plan: DesignPlan, subsets: NDArray[np.int64]) -> tuple[NDArray[np.int64] | None, bool]:
    """Return which permutation each run's subset is a prefix of, and whether permutations come in antithetic pairs."""
    if not isinstance(plan.design, Permutations):
        return None, False
    chains = [plan.design.chain(int(subset), plan.context) for subset in subsets]
    return np.asarray(chains, dtype=np.int64), plan.design.antithetic


def load_references(sweep: Sweep, store: RunStore) -> tuple[Reference, ...]:
    """Return the finished models of the fitting `full` designs that kept checkpoints."""
    found = []
    for name, plan in sweep.plans.items():
        if plan.design.kind != "full" or plan.design.purpose != "fit" or not plan.checkpoint_epochs:
            continue
        seeds = store.seeds(name)
        done = np.flatnonzero(store.states(name) == DONE)
        found += [Reference(int(seeds[row]), store.checkpoints(name, int(row))) for row in done]
    return tuple(found)


def gather(sweep: Sweep, store: RunStore, measure: str) -> Evidence:
    """Return all that an estimator may look at, for one measure. Runs kept for scoring are left out here."""
    fitting = [name for name, layout in store.designs.items() if layout.purpose == "fit"]
    runs = {name: load_runs(sweep, store, name, measure) for name in fitting}
    return Evidence(
        n=sweep.task.n,
        t=sweep.t,
        measure=measure,
        runs={name: found for name, found in runs.items() if len(found.masks)},
        references=load_references(sweep, store),
        task=sweep.task,
        queries=sweep.queries,
        seed=sweep.config.seed,
        empty=empty_outputs(sweep, measure),
    )


def heldout(sweep: Sweep, store: RunStore, measure: str) -> Runs | None:
    """Return the runs that the LDS is computed on, or None when there are not at least two finished subsets."""
    design = requirements.scoring_design(sweep.config, "lds")
    if design is None:
        return None
    runs = load_runs(sweep, store, design, measure)
    return runs if len(np.unique(runs.subsets)) >= 2 else None
