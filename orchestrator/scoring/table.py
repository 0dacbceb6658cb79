"""The table of scores: one row an (estimator, metric)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.scores import Score

SCORE_COLUMNS = (
    *("estimator", "metric", "value", "low", "high", "ceiling", "measure", "design"),
    *("queries", "subsets", "seeds", "train_seconds", "attribute_seconds"),
)
"""Columns of the tidy score table, one row an (estimator, metric)."""


@dataclass(frozen=True)
class Judged:
    """One attribution on its way to be scored."""

    label: str
    values: NDArray[np.floating]
    """(n, t)"""
    measure: str
    train_seconds: float
    attribute_seconds: float
    fitted_on: tuple[str, ...]
    utility: NDArray[np.floating] | None = None
    """(n,)"""


def row_of(judged: Judged, found: Score, metric: str, design: str) -> dict[str, Any]:
    """Return the row of one attribution's score."""
    return {
        "estimator": judged.label,
        "metric": metric,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "ceiling": found.ceiling,
        "measure": judged.measure,
        "design": design,
        "queries": found.queries,
        "subsets": found.subsets,
        "seeds": found.seeds,
        "train_seconds": judged.train_seconds,
        "attribute_seconds": judged.attribute_seconds,
    }
