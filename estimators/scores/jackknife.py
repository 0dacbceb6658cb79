"""Covariances of means over queries, by leaving out subsets: they count what queries share, each part of the noise once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GROUPS = 100


@dataclass(frozen=True)
class Jackknife:
    """Which subsets stay, one group of them after another left out. Row 0 is the data itself."""

    counts: NDArray[np.int64]
    """(1 + g, s) 1 or 0."""

    @classmethod
    def of(cls, subsets: int) -> Jackknife:
        """Leave out each of `subsets` subsets, or each of 100 groups where there are more."""
        groups = min(subsets, _GROUPS)
        group = np.arange(subsets) * groups // subsets
        left_out = np.arange(groups)[:, None] == group
        return cls(np.vstack([np.ones((1, subsets), dtype=np.int64), (~left_out).astype(np.int64)]))

    def covariance(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        """Return the covariance of the means over queries of two statistics (1 + g, t), over other subsets and queries.

        Subsets: the jackknife's (Quenouille 1956, Tukey 1958). Queries: what their values differ by, less what the noise of the
        subsets makes of it, since that is counted already (Owen 2007: resampling both counts it three times).
        """
        t = len(a[0])
        factor = (len(a) - 2) / (len(a) - 1)
        apart_a, apart_b = a[1:] - a[1:].mean(axis=0), b[1:] - b[1:].mean(axis=0)
        of_subsets: float = factor * float(apart_a.mean(axis=1) @ apart_b.mean(axis=1))
        if t == 1:
            return of_subsets
        of_noise = factor * float(np.einsum("gt,gt->", apart_a, apart_b)) / t
        of_queries = float(np.cov(a[0], b[0])[0, 1]) - of_noise
        return of_subsets + (max(of_queries, 0.0) if a is b else of_queries) / t

    def correlation(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        """Return the correlation of the two means, in [-1, 1]; 0 where one of them does not vary."""
        both = self.covariance(a, a) * self.covariance(b, b)
        return min(max(self.covariance(a, b) / math.sqrt(both), -1.0), 1.0) if both > 0 else 0.0
