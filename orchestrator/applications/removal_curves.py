"""Removal curves: sweeps inside the sweep's folder, which train on what is left when valued examples are taken away.

One for every estimator asked, in `removal/<estimator>`: an ordinary sweep, with its own store, ledger and lease, whose `explicit`
designs `best` and `worst` lack ever more examples; and `removal/random`, whose design `any` lacks random ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.scores.per_example import Valued
from estimators.scores.removal import RemovalCurve, removal_curve, removal_masks
from orchestrator.applications.nested_sweep import made_for, nest, write_masks
from orchestrator.attribution.evidence import load_runs
from orchestrator.config.schema import RemovalSection
from orchestrator.scoring.metric import Metric, Quantity
from orchestrator.scoring.table import ScoreRow
from orchestrator.store import accounting
from orchestrator.store.attributions import list_attributions, read_attribution
from orchestrator.store.paths import SweepPaths, check_name
from orchestrator.store.plain_files import refuse_links
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep

ANY = "any"
"""Design of the random order, which has no best and no worst."""
AREAS = {
    "best": Quantity("removal_best_area", "height of the curve, best examples removed first", better="lower"),
    "worst": Quantity("removal_worst_area", "height of the curve, worst examples removed first", better="higher"),
}
"""Order -> its number. What is really worth most lowers the curve most when it goes first."""


@dataclass(frozen=True)
class Removal:
    """One finished curve."""

    estimator: str
    order: str
    """best, worst, or any for the random order."""
    measure: str
    curve: RemovalCurve
    seeds: int
    train_seconds: float


def nested_sweeps(sweep: Sweep) -> Iterator[Sweep]:
    """Yield the sweeps to be trained, their masks written down, for every estimator that has an attribution.

    A sweep in the folder that was made for other masks (the attribution has changed since) is removed first.
    """
    section = sweep.config.scores.removal
    if section is None:
        return
    for label, masks in _all_masks(sweep, section, sweep.task.n):
        nested = nest(sweep, folder(sweep, label), f"{sweep.config.name}-removal-{label}", masks, section.seeds)
        write_masks(nested, masks)
        yield nested


def folder(sweep: Sweep, label: str) -> SweepPaths:
    """Return where the sweep of one estimator's curves is."""
    root = sweep.paths.root / "removal" / check_name(label)
    refuse_links(root)
    return SweepPaths(root)


def read_removals(sweep: Sweep) -> tuple[Removal, ...]:
    """Return the curves whose runs are all there, by estimator and order; none of an attribution that has changed since."""
    section = sweep.config.scores.removal
    if section is None:
        return ()
    with RunStore.open(sweep.paths) as outer:
        n = outer.n
    found: list[Removal] = []
    for label, masks in _all_masks(sweep, section, n):
        paths = folder(sweep, label)
        if not paths.config.exists() or not paths.runs.exists() or not made_for(paths, masks):
            continue
        nested = Sweep.at(paths.root)
        with RunStore.open(paths) as store:
            found += [one for order in store.designs if (one := _curve(sweep, nested, store, label, order)) is not None]
    return tuple(found)


def untrained(sweep: Sweep) -> list[str]:
    """Return whose removal curves are asked for, could be trained, and are not all there."""
    section = sweep.config.scores.removal
    if section is None:
        return []
    there = {(one.estimator, one.order) for one in read_removals(sweep)}
    stored = list_attributions(sweep.paths)
    wanted = {label: section.order for label in section.estimators if label in stored}
    curves = {**wanted, **({} if RemovalSection.BASELINE in section.estimators else {RemovalSection.BASELINE: (ANY,)})}
    return [label for label, orders in curves.items() if not {(label, order) for order in orders} <= there]


def _curve(sweep: Sweep, nested: Sweep, store: RunStore, label: str, order: str) -> Removal | None:
    section = sweep.config.scores.removal
    assert section is not None
    measure = section.measure or sweep.config.measures[0]
    runs = load_runs(nested, store, order, measure)
    seeds = nested.config.designs[order].seeds
    if len(np.unique(runs.subsets)) < store.designs[order].runs // seeds:
        return None
    return Removal(label, order, measure, removal_curve(runs), seeds, accounting.train_seconds(store, [order]))


def _all_masks(sweep: Sweep, section: RemovalSection, n: int) -> Iterator[tuple[str, dict[str, NDArray[np.bool_]]]]:
    """Yield each estimator's label and the subsets (k, n) that remain, by order."""
    stored = list_attributions(sweep.paths)
    for label in dict.fromkeys(section.estimators):
        if label not in stored:
            continue
        kept = read_attribution(sweep.paths, label)
        valued = Valued(kept.values, kept.utility, kept.attributes.measure, sweep.queries)
        helpful = valued.helpfulness(section.better)
        yield label, {order: removal_masks(helpful, section.fractions, order) for order in dict.fromkeys(section.order)}
    if RemovalSection.BASELINE not in section.estimators:
        drawn = np.random.default_rng([sweep.config.seed, n]).permutation(n).astype(np.float64)
        yield RemovalSection.BASELINE, {ANY: removal_masks(drawn, section.fractions, "best")}


class RemovalAreas(Metric):
    """The areas under the finished removal curves; the random order's curve stands for either order."""

    quantities = tuple(AREAS.values())
    place = 50

    def judge_sweep(self, sweep: Sweep, store: RunStore) -> list[ScoreRow]:
        """Return an area for every estimator and order whose curve is all there."""
        section = sweep.config.scores.removal
        rows: list[ScoreRow] = []
        for one in read_removals(sweep):
            orders = section.order if section is not None and one.order == ANY else (one.order,)
            rows += [_area(one, order, store.t) for order in orders]
        return rows


def _area(one: Removal, order: str, t: int) -> ScoreRow:
    value, low, high = one.curve.area
    return ScoreRow(
        estimator=one.estimator,
        metric=AREAS[order].name,
        value=value,
        low=low,
        high=high,
        ceiling=math.nan,
        measure=one.measure,
        design=one.order,
        queries=t,
        subsets=len(one.curve.removed),
        seeds=one.seeds,
        train_seconds=one.train_seconds,
        attribute_seconds=math.nan,
        order="own",
    )
