"""Means that are collected one observation at a time, their standard errors and intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workers.errors import ConfigError


def interval(
    values: ArrayLike, standard_error: ArrayLike, degrees_of_freedom: float = math.inf, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the intervals values -+ quantile * standard_error, of the values' shape, float64.

    The quantile is Student's t with these degrees of freedom, the normal one at infinity. NaN where the standard error
    is NaN. Raises ConfigError for a level that is not between 0 and 1.

    >>> import numpy as np
    >>> from estimators.values.intervals import interval
    >>> [end.round(2).tolist() for end in interval([1.0, 2.0], [0.5, np.nan])]  # no error is known of the second
    [[0.02, nan], [1.98, nan]]
    >>> [end.round(2).tolist() for end in interval(1.0, 0.5, degrees_of_freedom=4)]  # of 5 permutations: wider
    [-0.39, 2.39]
    """
    from scipy.special import stdtrit

    if not 0 < level < 1:
        raise ConfigError(f"level is {level}, expected a number between 0 and 1, such as 0.95")
    centre = np.asarray(values, dtype=np.float64)
    reach = stdtrit(degrees_of_freedom, (1 + level) / 2) * np.asarray(standard_error, dtype=np.float64)
    return centre - reach, centre + reach


class Moments:
    """Mean and standard error of independent observations of one shape, added one by one (Welford 1962)."""

    def __init__(self, shape: tuple[int, ...]):
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(shape)
        self._scatter: NDArray[np.float64] = np.zeros(shape)

    def add(self, observation: NDArray[np.floating[Any]]) -> None:
        """Add one observation."""
        self.count += 1
        distance = observation - self.mean
        self.mean += distance / self.count
        self._scatter += distance * (observation - self.mean)

    def standard_error(self) -> NDArray[np.float64]:
        """Return the standard error of the mean; NaN of fewer than two observations."""
        if self.count < 2:
            return np.full_like(self.mean, np.nan)
        # Unbiased for observations of different variances too, as long as their means agree.
        error: NDArray[np.float64] = np.sqrt(self._scatter / (self.count * (self.count - 1)))
        return error
