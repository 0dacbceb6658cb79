"""Bootstrap that resamples rows (subsets, examples) and queries at the same time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.scores.result import Estimate
from workers.errors import ConfigError


@dataclass(frozen=True)
class Resamples:
    """How often each row and each query occurs in every resample. Resample 0 is the data itself."""

    rows: NDArray[np.int64]
    """(1 + b, s), every resample sums to s."""
    queries: NDArray[np.int64]
    """(1 + b, t), every resample sums to t."""

    @classmethod
    def draw(cls, rows: int, queries: int, resamples: int, seed: int) -> Resamples:
        """Draw `resamples` resamples with replacement of `rows` rows and `queries` queries."""
        if resamples < 0:
            raise ConfigError(f"resamples is {resamples}, expected 0 (no interval) or more")
        rng = np.random.default_rng(seed)
        return cls(_counts(rows, resamples, rng), _counts(queries, resamples, rng))

    def means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (1 + b,) the mean over the resampled queries of `values` (1 + b, t), each query's in every resample of rows."""
        found: NDArray[np.float64] = np.einsum("bt,bt->b", values, self.queries) / self.queries.shape[1]
        return found


def estimate(means: NDArray[np.float64], level: float) -> Estimate:
    """Return a statistic and its bootstrap interval from its values (1 + b,) in the data and in every resample.

    The interval is the percentile interval of the resamples, shifted so that their centre is the value: a resample repeats rows,
    which lowers rank correlations by O(1 / s), and with many queries that bias is wider than the interval itself. NaN when
    nothing was resampled (b = 0).

    >>> import numpy as np
    >>> from estimators.scores.bootstrap import estimate
    >>> [round(x, 2) for x in estimate(np.array([0.5, 0.4, 0.6, 0.5]), 0.95)]
    [0.5, 0.41, 0.59]
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}, expected a number between 0 and 1, such as 0.95")
    value = float(means[0])
    if len(means) == 1:
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(means[1:], [(1 - level) / 2, (1 + level) / 2]) - means[1:].mean() + value
    return Estimate(value, float(low), float(high))


def correlation_estimate(means: NDArray[np.float64], level: float) -> Estimate:
    """Return `estimate` of a correlation, its interval cut to [-1, 1]."""
    value, low, high = estimate(means, level)
    return Estimate(value, float(np.clip(low, -1, 1)), float(np.clip(high, -1, 1)))


def difference(a: NDArray[np.float64], b: NDArray[np.float64], level: float = 0.95) -> Estimate:
    """Return a - b with its interval, from the values (1 + b,) of both in the same resamples.

    What the two have in common (hard queries, odd subsets) falls out of the difference, which is why two scores can be told apart
    although their intervals overlap. Raises ConfigError where the resamples are not as many.

    >>> import numpy as np
    >>> from estimators.scores.bootstrap import difference
    >>> a, b = np.array([0.5, 0.4, 0.6]), np.array([0.3, 0.25, 0.35])
    >>> [round(x, 3) for x in difference(a, b)]
    [0.2, 0.153, 0.247]
    """
    if a.shape != b.shape:
        raise ConfigError(f"a paired difference needs the same resamples of both, found {len(a) - 1} and {len(b) - 1}")
    return estimate(a - b, level)


def _counts(size: int, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (1 + resamples, size) counts, the first row all ones."""
    counts = np.ones((1 + resamples, size), dtype=np.int64)
    for row in counts[1:]:
        row[:] = np.bincount(rng.integers(size, size=size), minlength=size)
    return counts
