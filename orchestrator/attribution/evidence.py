"""From the store to what estimators and scores take: arrays of finished runs, reference models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Evidence, Reference, Runs
from estimators.reference_estimator import ReferenceEstimator
from orchestrator.attribution.lazy_runs import LazyRuns
from orchestrator.config.estimator_section import EstimatorSection
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.plan import context_of
from orchestrator.sweeps.roles import scoring_design
from orchestrator.sweeps.sweep import Sweep, empty_outputs
from orchestrator.sweeps.task_record import read_record
from orchestrator.sweeps.truncation import skipped
from workers.task_hooks import labeller_of

IN_MEMORY = 2**28
"""Bytes of masks and outputs up to which a design's runs are read at once; larger ones are read when asked for."""


def load_runs(sweep: Sweep, store: RunStore, design: str, measure: str, among: NDArray[np.int64] | None = None) -> Runs:
    """Return the finished runs of one design, or those `among` some rows (k,), seen through one measure, as of one moment."""
    with store.snapshot():
        return _load(sweep, store, design, measure, among)


def _load(sweep: Sweep, store: RunStore, design: str, measure: str, among: NDArray[np.int64] | None) -> Runs:
    rows = store.finished(design)
    if among is not None:
        rows = np.intersect1d(rows, among)
    done = np.zeros(store.designs[design].runs, dtype=bool)
    done[rows] = True
    permutations, antithetic = _permutations(sweep, store, design, done)
    large = done.sum() * (store.n + 4 * store.t) > IN_MEMORY
    seen: Callable[..., Runs] = (
        partial(LazyRuns, folder=store.paths.root, rows=rows)
        if large
        else partial(Runs, masks=store.masks(design)[done], outputs=store.outputs(design, measure)[done])
    )
    return seen(
        design=design,
        kind=sweep.config.designs[design].seen_as,
        measure=measure,
        subsets=store.subsets(design)[done].astype(np.int64),
        repeats=store.repeats(design)[done].astype(np.int64),
        permutations=permutations,
        antithetic=antithetic,
        order=sweep.config.designs[design].known_order,
    )


def _permutations(
    sweep: Sweep, store: RunStore, name: str, done: NDArray[np.bool_]
) -> tuple[NDArray[np.int64] | None, bool]:
    """Return which permutation each finished run's subset is a prefix of, and whether permutations come in pairs.

    -1 for those of a permutation that is neither finished nor truncated: its missing prefixes mean nothing.
    """
    prefixes = sweep.config.designs[name].prefixes(context_of(sweep.config, name, store.n))
    if prefixes is None:
        return None, False
    settled = np.all((done | skipped(sweep.config, store, name)).reshape(-1, prefixes.steps), axis=1)
    numbers = np.arange(len(done) // prefixes.steps)
    permutations = np.where(settled, numbers, -1).repeat(prefixes.steps)
    return permutations[done].astype(np.int64), prefixes.antithetic


def load_references(sweep: Sweep, store: RunStore) -> tuple[Reference, ...]:
    """Return the finished models of the fitting designs that kept checkpoints."""
    found = []
    for name in reference_designs(sweep, store):
        seeds = store.seeds(name)
        design = sweep.config.designs[name]
        found += [
            Reference(int(seeds[row]), store.checkpoints(name, int(row)), design.order, design.normalize)
            for row in store.finished(name)
        ]
    return tuple(reference for reference in found if reference.checkpoints)


def reference_designs(sweep: Sweep, store: RunStore) -> list[str]:
    """Return the fitting designs whose models kept checkpoints, as the ledger has it."""
    designs = sweep.config.designs
    able = [
        one for name, one in store.designs.items() if "checkpoints" in designs[name].serves and one.purpose == "fit"
    ]
    return [
        one.name
        for one in able
        if any(row.checkpoints for pack in range(one.packs) for row in store.record(one.name, pack).rows)
    ]


def why_few_references(sweep: Sweep, store: RunStore, section: EstimatorSection, there: int) -> str:
    """Return which trainings of reference models failed, to be said after an error; empty where that is not the reason for it."""
    options = section.options
    if (
        not isinstance(options, ReferenceEstimator)
        or "checkpoints" not in options.needed
        or there >= (options.models or 1)
    ):
        return ""
    designs = sweep.config.designs
    able = [one.name for one in store.designs.values() if "checkpoints" in designs[one.name].serves]
    failures = [
        (name, failed) for name in able if store.designs[name].purpose == "fit" for failed in store.failures(name)
    ]
    if not failures:
        return ""
    name, first = failures[0]
    return f": {len(failures)} trainings of {name} failed, the first with {first.kind}: {first.message}"


def gather(sweep: Sweep, store: RunStore, measure: str) -> Evidence:
    """Return what an estimator may look at, for one measure, from what is kept: the task is not built.

    Runs kept for scoring are left out here. Estimators that need gradients are given more (`with_models`).
    """
    record = read_record(sweep)
    fitting = [name for name, layout in store.designs.items() if layout.purpose == "fit"]
    runs = {name: load_runs(sweep, store, name, measure) for name in fitting}
    return Evidence(
        n=store.n,
        t=store.t,
        measure=measure,
        runs={name: found for name, found in runs.items() if len(found.subsets)},
        without_runs={name: found.kind for name, found in runs.items() if not len(found.subsets)},
        queries=sweep.queries,
        seed=sweep.config.seed,
        label=record.examples.label,
        empty=record.empty_outputs(measure),
    )


def with_models(evidence: Evidence, sweep: Sweep, store: RunStore) -> Evidence:
    """Return the evidence with the reference models and the task, whose code this runs."""
    return replace(evidence, task=sweep.task, references=load_references(sweep, store))


def heldout(sweep: Sweep, store: RunStore, measure: str, metric: str = "lds") -> Runs | None:
    """Return the runs that a metric ("lds" or "spread") is computed on, or None without two finished subsets."""
    design = scoring_design(sweep.config, metric)
    if design is None:
        return None
    runs = load_runs(sweep, store, design, measure)
    return runs if len(np.unique(runs.subsets)) >= 2 else None


def planned_subsets(store: RunStore, design: str) -> int:
    """Return how many subsets a design has, those without a finished run included."""
    return len(np.unique(store.subsets(design)))


def no_runs_yet(sweep: Sweep, measure: str) -> Evidence:
    """Return the evidence that the task alone gives, for one measure."""
    return Evidence(
        n=sweep.task.n,
        t=sweep.t,
        measure=measure,
        task=sweep.task,
        queries=sweep.queries,
        seed=sweep.config.seed,
        label=labeller_of(sweep.task),
        empty=empty_outputs(sweep, measure),
    )
