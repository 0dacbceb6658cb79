"""From the store to what estimators and scores take: arrays of finished runs, reference models."""

from __future__ import annotations

import numpy as np

from estimators.contract import Evidence, Reference, Runs
from orchestrator.store import DONE, RunStore
from orchestrator.sweep import Sweep


def load_runs(store: RunStore, design: str, measure: str) -> Runs:
    """Return the finished runs of one design, seen through one measure."""
    done = store.states(design) == DONE
    return Runs(
        design,
        store.designs[design].kind,
        measure,
        store.masks(design)[done],
        store.outputs(design, measure)[done],
        store.subsets(design)[done].astype(np.int64),
        store.repeats(design)[done].astype(np.int64),
    )


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
    runs = {name: load_runs(store, name, measure) for name in fitting}
    return Evidence(
        n=sweep.task.n,
        t=sweep.t,
        measure=measure,
        runs={name: found for name, found in runs.items() if len(found.masks)},
        references=load_references(sweep, store),
        task=sweep.task,
        queries=sweep.queries,
        seed=sweep.config.seed,
    )
