"""The leaderboard and the other tables of scores, read from the tidy score table, the best first."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from estimators import registry
from estimators.contract import Need
from orchestrator.applications.brittleness import AREAS
from orchestrator.report.data import Family, ReportData
from orchestrator.scoring.detection import DETECTION
from orchestrator.scoring.lds import LDS
from orchestrator.scoring.leave_one_out import LEAVE_ONE_OUT
from orchestrator.scoring.metric import Quantity
from orchestrator.scoring.ranking import quantity, ranked
from orchestrator.scoring.seed_check import SEED_CHECK
from orchestrator.scoring.table import as_rows
from workers.errors import ConfigError

Row = Mapping[Hashable, Any]
"""One row of the tidy score table, by column."""
SHOWN_ELSEWHERE = frozenset(one.name for one in (LDS, LEAVE_ONE_OUT, SEED_CHECK, DETECTION, *AREAS.values()))
"""Quantities that have a part of the page made for them; those of all other metrics get a table each."""


@dataclass(frozen=True)
class Score:
    """One scored number with its 95% interval; NaN where unknown."""

    value: float
    low: float
    high: float
    ceiling: float

    @property
    def covers_zero(self) -> bool:
        """Whether 0 lies inside the interval."""
        return self.low <= 0 <= self.high

    @property
    def of_ceiling(self) -> float:
        """Value as a fraction of the ceiling; NaN without a positive ceiling."""
        return self.value / self.ceiling if self.ceiling > 0 else math.nan


@dataclass(frozen=True)
class Entry:
    """One line of the leaderboard."""

    estimator: str
    family: Family
    lds: Score
    loo: Score | None
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

    @property
    def seconds(self) -> float:
        """Training and attribution together; a part that is unknown counts nothing."""
        return sum(part for part in (self.train_seconds, self.attribute_seconds) if math.isfinite(part))


def entries(data: ReportData) -> tuple[Entry, ...]:
    """Return one entry an (estimator, design) with an LDS of the report's measure, by falling LDS, NaN last."""
    scores = data.scores[data.scores["measure"] == data.measure]
    loo = {str(row["estimator"]): _score(row) for row in _rows(scores, LEAVE_ONE_OUT.name)}
    found = [_entry(data, row, loo) for row in _rows(scores, LDS.name)]
    return tuple(sorted(found, key=lambda entry: (math.isnan(entry.lds.value), -entry.lds.value, entry.estimator)))


def seed_check(data: ReportData) -> Score | None:
    """Return how fresh seeds correlate with the mean of the others, where the sweep measured it."""
    rows = _rows(data.scores[data.scores["measure"] == data.measure], SEED_CHECK.name)
    return _score(rows[0]) if rows else None


@dataclass(frozen=True)
class Detection:
    """How well one estimator finds the examples that the task mislabelled."""

    estimator: str
    family: Family
    measure: str
    auc: Score


def detections(data: ReportData) -> tuple[Detection, ...]:
    """Return the areas under the ROC curve, of all measures, the largest first."""
    rows = _rows(data.scores, DETECTION.name)
    found = [
        Detection(str(r["estimator"]), family(data, str(r["estimator"])), str(r["measure"]), _score(r)) for r in rows
    ]
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
    best: Score | None
    worst: Score | None


def areas(data: ReportData) -> tuple[Area, ...]:
    """Return the areas under the removal curves, an estimator a row."""
    found = {
        order: {str(row["estimator"]): _score(row) for row in _rows(data.scores, area.name)}
        for order, area in AREAS.items()
    }
    names = dict.fromkeys([*found["best"], *found["worst"]])
    return tuple(Area(name, found["best"].get(name), found["worst"].get(name)) for name in names)


@dataclass(frozen=True)
class OtherScore:
    """One line of a table of scores that has no part of the page to itself."""

    estimator: str
    family: Family
    measure: str
    score: Score


@dataclass(frozen=True)
class OtherTable:
    """All scores of one quantity that has no part of the page to itself."""

    quantity: Quantity
    lines: tuple[OtherScore, ...]


def others(data: ReportData) -> tuple[OtherTable, ...]:
    """Return a table for every quantity that has no part of the page to itself, of all measures, in the metrics' order."""
    rows = [row for row in ranked(as_rows(data.scores)) if row.metric not in SHOWN_ELSEWHERE]
    return tuple(
        OtherTable(
            quantity(name),
            tuple(
                OtherScore(
                    row.estimator,
                    family(data, row.estimator),
                    row.measure,
                    Score(row.value, row.low, row.high, row.ceiling),
                )
                for row in rows
                if row.metric == name
            ),
        )
        for name in dict.fromkeys(row.metric for row in rows)
    )


def family(data: ReportData, estimator: str) -> Family:
    """Return the estimator's family: as given with the data, else by what its registered class needs, else "other"."""
    if estimator in data.families:
        return data.families[estimator]
    try:
        return family_of(registry.find(estimator).needs)
    except ConfigError:
        return "other"


def family_of(needs: frozenset[Need]) -> Family:
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


def _rows(scores: pd.DataFrame, metric: str) -> list[Row]:
    return list(scores[scores["metric"] == metric].to_dict("records"))


def _number(row: Row, name: str) -> float:
    return math.nan if pd.isna(row[name]) else float(row[name])


def _count(row: Row, name: str) -> int:
    return 0 if pd.isna(row[name]) else int(row[name])


def _score(row: Row) -> Score:
    return Score(*(_number(row, name) for name in ("value", "low", "high", "ceiling")))


def _entry(data: ReportData, row: Row, loo: Mapping[str, Score]) -> Entry:
    name = str(row["estimator"])
    return Entry(
        estimator=name,
        family=family(data, name),
        lds=_score(row),
        loo=loo.get(name),
        models=data.models.get(name),
        train_seconds=_number(row, "train_seconds"),
        attribute_seconds=_number(row, "attribute_seconds"),
        design=str(row["design"]),
        subsets=_count(row, "subsets"),
        seeds=_count(row, "seeds"),
        queries=_count(row, "queries"),
    )
