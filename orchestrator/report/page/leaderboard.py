"""The leaderboard and the other tables of scores, read from the tidy score table, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from estimators import registry
from estimators.contract import Need
from orchestrator.applications.removal_curves import AREAS
from orchestrator.report.data import Family, ReportData
from orchestrator.report.page.shown_score import ShownScore
from orchestrator.scoring.detection import DETECTION
from orchestrator.scoring.lds import LDS
from orchestrator.scoring.leave_one_out import LEAVE_ONE_OUT
from orchestrator.scoring.metric import Quantity
from orchestrator.scoring.ranking import tables
from orchestrator.scoring.regime import Regime, regime_of
from orchestrator.scoring.seed_check import SEED_CHECK
from orchestrator.scoring.table import ScoreRow, as_rows
from orchestrator.scoring.wording import ceilings, is_compared, name_of, stands_on
from workers.errors import ConfigError

SHOWN_ELSEWHERE = frozenset(one.name for one in (LDS, LEAVE_ONE_OUT, SEED_CHECK, DETECTION, *AREAS.values()))
"""Quantities that have a part of the page made for them; those of all other metrics get a table each."""


@dataclass(frozen=True)
class Entry:
    """One line of the leaderboard."""

    estimator: str
    family: Family
    lds: ShownScore
    loo: ShownScore | None
    models: int | None
    """Trained models it used; None where nobody counted (an attribution file brought by the user)."""
    train_seconds: float
    """Time it took to train the models it used, summed over them."""
    attribute_seconds: float
    design: str
    """Design whose runs it is scored on."""
    subsets: int
    seeds: int
    queries: int
    row: ScoreRow
    """The whole row of the score table."""
    curve: str = ""
    """What it has in common with entries that differ in the number of reference models alone; empty where there are none."""

    @property
    def name(self) -> str:
        """What the table calls it: marked where its options were tuned."""
        return name_of(self.row)

    @property
    def seconds(self) -> float:
        """Training and attribution together; a part that is unknown counts nothing."""
        return sum(part for part in (self.train_seconds, self.attribute_seconds) if math.isfinite(part))


def entries(data: ReportData) -> tuple[Entry, ...]:
    """Return one entry an (estimator, design) with an LDS of the report's measure, by falling LDS, NaN last."""
    scores = data.scores[data.scores["measure"] == data.measure]
    loo = {row.estimator: ShownScore.of(row) for row in _rows(scores, LEAVE_ONE_OUT.name)}
    found = [_entry(data, row, loo) for row in _rows(scores, LDS.name)]
    return tuple(sorted(found, key=lambda entry: (math.isnan(entry.lds.value), -entry.lds.value, entry.estimator)))


@dataclass(frozen=True)
class Board:
    """The leaderboard of one regime."""

    entries: tuple[Entry, ...]
    """The best first."""
    compared: bool
    """Whether some rows say what they can be told from."""
    said: tuple[str, ...]
    """What the scores stand on, those of leaving one out included, and what is to be said of the noise ceiling."""

    @property
    def several_designs(self) -> bool:
        """Whether its scores are those of several designs."""
        return len({entry.design for entry in self.entries}) > 1


def boards(data: ReportData) -> tuple[Board, ...]:
    """Return a leaderboard a regime, that of the best entry first."""
    found: dict[Regime, list[Entry]] = {}
    for entry in entries(data):
        found.setdefault(regime_of(entry.row), []).append(entry)
    loo = _rows(data.scores[data.scores["measure"] == data.measure], LEAVE_ONE_OUT.name)
    return tuple(_board(tuple(some), loo) for some in found.values())


def _board(some: tuple[Entry, ...], loo: tuple[ScoreRow, ...]) -> Board:
    rows = [entry.row for entry in some]
    of_loo = [f"LOO corr., {line}" for line in stands_on(loo)]
    return Board(some, any(is_compared(row) for row in rows), (*stands_on(rows), *of_loo, *ceilings(LDS, rows)))


def seed_check(data: ReportData) -> ShownScore | None:
    """Return how fresh seeds correlate with the mean of the others, where the sweep measured it."""
    rows = _rows(data.scores[data.scores["measure"] == data.measure], SEED_CHECK.name)
    return ShownScore.of(rows[0]) if rows else None


@dataclass(frozen=True)
class Detection:
    """How well one estimator finds the examples that the task mislabelled."""

    estimator: str
    family: Family
    measure: str
    auc: ShownScore


def detections(data: ReportData) -> tuple[Detection, ...]:
    """Return the areas under the ROC curve, of all measures, the largest first."""
    rows = _rows(data.scores, DETECTION.name)
    found = [Detection(row.estimator, family(data, row.estimator), row.measure, ShownScore.of(row)) for row in rows]
    return tuple(sorted(found, key=lambda one: (-one.auc.value, one.estimator)))


def saturates(data: ReportData) -> bool:
    """Say whether what examples do to their own output finds the mislabelled ones better on the margin than the probability."""
    best: dict[str, float] = {}
    for one in detections(data):
        best.setdefault(one.measure, one.auc.value)
    own = data.queries.source == "train" and {"margin", "probability"} <= set(best)
    return own and best["margin"] > best["probability"]


@dataclass(frozen=True)
class Area:
    """Areas under one estimator's removal curves; None for an order that was not asked."""

    estimator: str
    best: ShownScore | None
    worst: ShownScore | None


def areas(data: ReportData) -> tuple[Area, ...]:
    """Return the areas under the removal curves, an estimator a row."""
    found = {
        order: {row.estimator: ShownScore.of(row) for row in _rows(data.scores, area.name)}
        for order, area in AREAS.items()
    }
    names = dict.fromkeys([*found["best"], *found["worst"]])
    return tuple(Area(name, found["best"].get(name), found["worst"].get(name)) for name in names)


@dataclass(frozen=True)
class OtherScore:
    """One line of a table of scores that has no part of the page to itself."""

    name: str
    """Its estimator, marked where its options were tuned."""
    family: Family
    measure: str
    score: ShownScore


@dataclass(frozen=True)
class OtherTable:
    """All scores of one quantity, in one regime, that has no part of the page to itself."""

    quantity: Quantity
    lines: tuple[OtherScore, ...]
    said: tuple[str, ...] = ()
    """What the numbers stand on, and what is to be said of the noise ceiling."""


def others(data: ReportData) -> tuple[OtherTable, ...]:
    """Return the tables of quantities that have no part of the page to themselves, of all measures, in the metrics' order."""
    rows = [row for row in as_rows(data.scores) if row.metric not in SHOWN_ELSEWHERE]
    return tuple(
        OtherTable(
            table.quantity,
            tuple(
                OtherScore(name_of(row), family(data, row.estimator), row.measure, ShownScore.of(row))
                for row in table.rows
            ),
            (*stands_on(table.rows), *ceilings(table.quantity, table.rows)),
        )
        for table in tables(rows)
    )


def family(data: ReportData, estimator: str) -> Family:
    """Return the estimator's family: as given with the data, else by what its registered class needs, else "other"."""
    if estimator in data.families:
        return data.families[estimator]
    try:
        return family_of(registry.find(estimator).needs)
    except ConfigError:
        return "other"


def family_of(needs: frozenset[Need] | frozenset[str]) -> Family:
    """Return the family of an estimator with these needs."""
    if "gradients" in needs:
        return "gradients"
    return "retraining" if needs - {"checkpoints", "full"} else "other"


def pair(board: tuple[Entry, ...], available: set[str]) -> tuple[Entry, ...]:
    """Return at most two entries to show side by side: the best of retraining and of gradients, else the next best."""
    unique = {entry.estimator: entry for entry in reversed(board) if entry.estimator in available}
    ranked = [entry for entry in board if unique.get(entry.estimator) is entry]
    chosen = [next((entry for entry in ranked if entry.family == kind), None) for kind in ("retraining", "gradients")]
    picked = [entry for entry in chosen if entry is not None]
    picked += [entry for entry in ranked if entry not in picked][: 2 - len(picked)]
    return tuple(sorted(picked, key=ranked.index))


def _rows(scores: pd.DataFrame, metric: str) -> tuple[ScoreRow, ...]:
    return as_rows(scores[scores["metric"] == metric])


def _entry(data: ReportData, row: ScoreRow, loo: Mapping[str, ShownScore]) -> Entry:
    return Entry(
        estimator=row.estimator,
        family=family(data, row.estimator),
        lds=ShownScore.of(row),
        loo=loo.get(row.estimator),
        models=data.models.get(row.estimator),
        train_seconds=row.train_seconds,
        attribute_seconds=row.attribute_seconds,
        design=row.design,
        subsets=row.subsets,
        seeds=row.seeds,
        queries=row.queries,
        row=row,
        curve=data.curves.get(row.estimator, ""),
    )
