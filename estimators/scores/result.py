"""What a score is: a number that never travels without its interval, its ceiling and what it was computed on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from estimators.scores.basis import Basis


class Estimate(NamedTuple):
    """A value with the ends of its confidence interval; the ends are NaN where no interval can be given."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Score:
    """How well an attribution agrees with runs it has never seen."""

    metric: str
    """What it is: `lds`, `loo`, `spread_lds`, ..."""
    value: float
    """Mean of `per_query`."""
    low: float
    """Lower end of the confidence interval."""
    high: float
    """Upper end of the confidence interval."""
    ceiling: float
    """What a perfect predictor of the expected output would reach on these runs; NaN where unknown."""
    per_query: NDArray[np.float64]
    """(t,) the score of every query."""
    queries: int
    """t."""
    subsets: int
    """Number of points each query's correlation runs over: held-out subsets (lds) or left-out examples (loo)."""
    seeds: int
    """Seeds of the subset that has most; `basis` tells when others have fewer. 0 where unknown."""
    basis: Basis = field(default_factory=Basis)
    """The regime of the subsets, and what was left out."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else is worth telling: numbers and strings."""
    ceiling_low: float = math.nan
    """Lower end of the ceiling's interval, at least 0; where it is 0 there was nothing to find."""
    ceiling_high: float = math.nan
    """Upper end of the ceiling's interval."""
    resampled: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    """(1 + b,) the value in the data and in every resample. Two scores on the same runs, with as many resamples and one seed, are
    of the same ones: `bootstrap.difference` compares them."""
    share: Estimate = UNKNOWN
    """value / ceiling, its interval paired; NaN where the ceiling is unknown or its interval reaches 0."""
