"""A sweep that nobody trained: the folder that one would leave, with made-up runs and attributions, of a few of its queries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from orchestrator.config.schema import Config, QueriesSection
from orchestrator.forecast.made_up import LARGEST, made_up_effects, made_up_outputs
from orchestrator.stages.plan import layout_of
from orchestrator.store.attributions import Attributes, StoredAttribution, write_attribution
from orchestrator.store.durable import write_atomically
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.plan import DesignPlan
from orchestrator.sweeps.roles import fresh_design, scoring_design
from orchestrator.sweeps.sweep import Sweep
from workers.errors import DataError
from workers.runs import Outcome

FEW = 128
"""Runs of a design that nothing is judged by, about: whoever reads those reads no more than their masks."""
PACK = 256
"""Runs that are written together."""


@contextmanager
def made_up_sweep(sweep: Sweep, plans: Mapping[str, DesignPlan], queries: int) -> Iterator[tuple[Sweep, RunStore]]:
    """Make the sweep on its first `queries` queries in a temporary folder, and its store; both are gone afterwards.

    All runs are there by which attributions are judged, and the first ones of other designs. Raises DataError where that is more
    than can be made up.
    """
    source = sweep.task.n if sweep.queries.source == "train" else sweep.task.t
    chosen = tuple(sweep.queries.take(source)[:queries].tolist())
    section = QueriesSection(source=sweep.queries.source, indices=chosen)
    counts = {name: _runs(plan, name in _judging(sweep)) for name, plan in plans.items()}
    if sum(counts.values()) * (sweep.task.n + 4 * queries * len(sweep.config.measures)) > LARGEST:
        raise DataError("its runs are too many to be made up")
    with TemporaryDirectory(prefix="counterfactory-") as folder:
        paths = SweepPaths(Path(folder).resolve() / "sweep")
        few = replace(sweep, config=sweep.config.model_copy(update={"queries": section}), paths=paths)
        write_atomically(paths.config, f"name: {few.config.name}\n".encode())  # only ever shown
        layouts = [replace(layout_of(plan), runs=counts[name], pack=PACK) for name, plan in plans.items()]
        effects = made_up_effects(sweep.task.n, queries, np.random.default_rng(sweep.config.seed))
        with RunStore.create(
            paths,
            config_hash=few.config.identity(),
            n=sweep.task.n,
            t=queries,
            measures=few.config.measures,
            designs=layouts,
        ) as store:
            for plan in plans.values():
                _write_runs(store, plan, effects)
            _write_attributions(few, effects)
            yield few, store


def _judging(sweep: Sweep) -> Set[str | None]:
    """Return the designs whose outputs the scores read."""
    config = sweep.config
    return {*(scoring_design(config, metric) for metric in ("lds", "spread", "loo")), fresh_design(config)}


def _runs(plan: DesignPlan, judging: bool) -> int:
    """Return how many of a design's runs are made up: all, or the first of them, and then subsets and permutations are whole."""
    prefixes = plan.design.prefixes(plan.context)
    whole = plan.design.seeds * (1 if prefixes is None else prefixes.steps)
    return plan.runs if judging else min(plan.runs, max(1, FEW // whole) * whole)


def _write_runs(store: RunStore, plan: DesignPlan, effects: NDArray[np.float32]) -> None:
    layout, rng = store.designs[plan.name], np.random.default_rng(plan.runs)
    for pack in range(layout.packs):
        span = layout.rows(pack)
        rows = plan.rows(span.start, span.stop)
        store.write_plan(plan.name, span.start, rows.masks, rows.seeds, rows.subsets, rows.repeats, rows.weights)
    for pack in range(layout.packs):
        span = layout.rows(pack)
        masks = store.masks(plan.name, span.start, span.stop)
        outputs = {measure: made_up_outputs(masks, effects, rng) for measure in store.measures}
        outcomes = [
            Outcome(row, {measure: values[k] for measure, values in outputs.items()}) for k, row in enumerate(span)
        ]
        store.commit(plan.name, pack, outcomes, worker="nobody", started=time.time(), seconds=0.0)


def most_judged(config: Config) -> str | None:
    """Return the estimator of whose attribution most is said: one that claims units if any does; None where there is none."""
    named = config.estimators
    return min(named, key=lambda label: not named[label].options.claims_units, default=None)


def _write_attributions(sweep: Sweep, values: NDArray[np.float32]) -> None:
    """Keep values (n, t) as the answer of every estimator: that of the `most_judged`, and copies, which nothing waits for.

    It trained no models that could be counted, and is of the first measure.
    """
    first = most_judged(sweep.config)
    if first is None:
        return
    section, designs = sweep.config.estimators[first], sweep.config.designs
    needs = section.needed
    attributes = Attributes(
        estimator=section.estimator,
        claims_units=section.options.claims_units,
        measure=sweep.config.measures[0],
        needs=tuple(sorted(needs)),
        fitted_on=tuple(name for name, one in designs.items() if one.purpose == "fit" and one.serves & needs),
        seconds=1.0,
    )
    write_attribution(sweep.paths, first, StoredAttribution(values, attributes))
    for label in sweep.config.estimators:
        if label != first:
            copytree(sweep.paths.attribution(first), sweep.paths.attribution(label))
