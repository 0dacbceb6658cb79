"""The noise ceiling: what a perfect predictor of the expected output would reach on runs with few seeds a subset.

Two trainings on the same subset differ by their seeds, so even the exact expected output does not rank the measured
ones perfectly. A query's *reliability* is the share of a single seed's variance that the subset explains; that of the mean of R
seeds follows by Spearman-Brown, and a perfect predictor correlates with it by the square root. What is measured is r, the mean
Spearman correlation between single seeds; how the mean over queries of the roots is had from it, `deconvolution` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs
from estimators.scores.agreement import FEWEST, Floats, Law, spearman_brown
from estimators.scores.deconvolution import deconvolve
from estimators.scores.jackknife import Jackknife
from estimators.scores.result import Estimate
from estimators.scores.seeds import complete_block, harmonic_mean, seeds_per_subset
from estimators.scores.spearman import resampled_pairs


@dataclass(frozen=True)
class Ceiling:
    """The noise ceiling of a design's runs; NaN, and `reason` says why, where there is nothing to compare.

    What seeds are compared in is their outputs (`noise_ceiling`) or their spread (`spread_ceiling`).
    """

    value: float
    """An estimate, right on average; below 0 now and then where there is no signal."""
    low: float
    """Lower end of the confidence interval, at least 0."""
    high: float
    """Upper end of the confidence interval, at most 1."""
    per_query: NDArray[np.float64]
    """(t,) what each query's r says for itself, clipped at 0: to be looked at; its mean is biased and is not the value."""
    r: NDArray[np.float64]
    """(t,) mean Spearman correlation, over subsets, between single seeds; of spreads, between halves of the seeds."""
    seeds: float
    """R: seeds a subset (their harmonic mean where subsets differ)."""
    subsets: int
    """Subsets with enough seeds to be compared, those that r is measured on."""
    reason: str = ""
    compared: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    """(subsets,) which of the design's subsets these are."""
    left_out: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    """(1 + g, t) r, and what it is without each of g groups of these subsets (`Jackknife.of(subsets)`)."""

    @classmethod
    def unknown(cls, queries: int, seeds: float, reason: str) -> Ceiling:
        """Return that of runs with nothing to compare."""
        nothing = np.full(queries, np.nan)
        return cls(np.nan, np.nan, np.nan, nothing, nothing, seeds, 0, reason)

    @property
    def estimate(self) -> Estimate:
        """The value with its interval."""
        return Estimate(self.value, self.low, self.high)

    @property
    def nothing_to_find(self) -> bool:
        """Whether the interval reaches 0: seeds of a subset agree no better than chance, and no attribution can be told apart."""
        return self.low <= 0


def noise_ceiling(runs: Runs, *, level: float = 0.95) -> Ceiling:
    """Return the noise ceiling of `runs`, with its interval over other subsets and queries.

    Seeds of one subset are exchangeable. Where subsets differ in their number of seeds, r is measured on the largest
    complete block (subsets x seeds) and R is the harmonic mean, which is what the noise of the means goes by.

    >>> import numpy as np
    >>> from estimators import Runs
    >>> from estimators.scores import noise_ceiling
    >>> a, b = np.array([1, 2, 3, 4, 5, 6, 7, 8]), np.array([2, 1, 3, 5, 4, 6, 8, 7])  # two seeds on 8 subsets
    >>> masks, outputs = np.eye(8, dtype=bool).repeat(2, axis=0), np.stack([a, b], axis=1).reshape(16, 1)
    >>> ceiling = noise_ceiling(Runs("score", "subsets", "margin", masks, outputs, np.arange(16) // 2, np.arange(16) % 2))
    >>> ceiling.r.round(2).tolist(), ceiling.nothing_to_find
    ([0.93], False)
    >>> ceiling.per_query.round(2).tolist()  # the square root of 2r / (1 + r)
    [0.98]
    """
    block, seeds = complete_block(runs), seeds_per_subset(runs)
    r_seeds, s, t = block.outputs.shape
    if r_seeds < 2 or s < FEWEST:
        reason = f"needs {FEWEST} subsets with 2 seeds each, {runs.design!r} has {int((seeds > 1).sum())}"
        return Ceiling.unknown(t, harmonic_mean(seeds), reason)
    average = harmonic_mean(seeds)
    r = resampled_pairs(block.outputs, Jackknife.of(s).counts)
    return ceiling_of(
        r, Law.of(s, r_seeds), lambda one: np.sqrt(spearman_brown(one, average)), average, block.subsets, level
    )


def ceiling_of(
    r: Floats,
    law: Law,
    pearson: Callable[[Floats], Floats],
    seeds: float,
    compared: NDArray[np.int64],
    level: float,
) -> Ceiling:
    """Return the ceiling that belongs to how well seeds agree.

    `r` (1 + g, t) is measured, in the data and without each group of the `compared` subsets, and has that `law`; `pearson` says
    how well a perfect predictor correlates with what is scored on, given the reliability of what r compares, in [0, 1].
    """
    error = math.sqrt(Jackknife.of(len(compared)).covariance(r, r))
    value, low, high = deconvolve(r[0], law, pearson, error, level)
    per_query = pearson(np.maximum(r[0], 0))
    return Ceiling(value, low, high, per_query, r[0], seeds, len(compared), compared=compared, left_out=r)
