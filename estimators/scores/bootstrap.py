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

    def estimate(self, values: NDArray[np.float64], level: float) -> Estimate:
        """Return the mean over queries and its bootstrap interval, cut to [-1, 1].

        `values` (1 + b, t) holds the statistic of every query in every resample of the rows; this takes the mean over
        the resampled queries. The interval is the percentile interval of these means, shifted so that their centre is
        the value: a resample repeats rows, which lowers rank correlations by O(1 / s), and with many queries that bias is
        wider than the interval itself. NaN when nothing was resampled (b = 0).
        """
        if not 0 < level < 1:
            raise ConfigError(f"level is {level}, expected a number between 0 and 1, such as 0.95")
        means = np.einsum("bt,bt->b", values, self.queries) / self.queries.shape[1]
        if len(means) == 1:
            return Estimate(float(means[0]), np.nan, np.nan)
        spread = np.quantile(means[1:], [(1 - level) / 2, (1 + level) / 2]) - means[1:].mean()
        low, high = np.clip(means[0] + spread, -1, 1)
        return Estimate(float(means[0]), float(low), float(high))


def _counts(size: int, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (1 + resamples, size) counts, the first row all ones."""
    counts = np.ones((1 + resamples, size), dtype=np.int64)
    for row in counts[1:]:
        row[:] = np.bincount(rng.integers(size, size=size), minlength=size)
    return counts
