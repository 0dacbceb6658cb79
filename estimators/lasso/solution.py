"""What solving paths takes and brings: sparse columns, errors and gaps along the penalties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.lasso.collect import Held
from estimators.lasso.settings import Settings
from estimators.lasso.statistics import Floats, Quadratic


@dataclass(frozen=True)
class Column:
    """One sparse coefficient vector, in the units of the quadratic problem."""

    index: NDArray[np.int64]
    """(s,) which coefficients are not zero."""
    values: NDArray[np.floating[Any]]
    """(s,)"""


NOTHING = Column(np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class Paths:
    """What the paths of k queries brought; of the coefficients only each query's best column."""

    penalties: Floats
    """(k, L)"""
    errors: Floats
    """(k, L) mean squared held-out error; NaN where a path had stopped."""
    spreads: Floats
    """(k, L) their standard errors over the held-out subsets."""
    gaps: Floats
    """(k, L) duality gaps relative to the objective at w = 0 (half the variance of the outputs)."""
    best: NDArray[np.int64]
    """(k,) which lambda had the least held-out error; the last one walked, without held-out subsets."""
    columns: list[Column]
    """The coefficients there."""
    predictions: NDArray[np.floating[Any]]
    """(k, h) and what they predict for the held-out subsets, mean output included."""


def no_held(problem: Quadratic, settings: Settings) -> Held:
    """Return held-out subsets that are none."""
    return Held(np.empty((len(problem.gram), 0), np.uint8), np.empty((len(problem.queries), 0), settings.dtype))
