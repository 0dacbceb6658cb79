"""A check of the noise ceiling: whether seeds that it has never seen correlate with the mean over its seeds as it predicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs
from estimators.scores.agreement import FEWEST, Floats, Law, spearman_brown
from estimators.scores.deconvolution import mean_over_queries
from estimators.scores.jackknife import Jackknife
from estimators.scores.overlap import packed
from estimators.scores.seeds import Block, complete_block
from estimators.scores.spearman import resampled_pairs, resampled_spearman
from workers.errors import DataError


@dataclass(frozen=True)
class Agreement:
    """A measured correlation beside the one that the ceiling's formula predicts."""

    measured: float
    predicted: float
    low: float
    """Lower end of the confidence interval of measured - predicted."""
    high: float
    """Upper end of the confidence interval of measured - predicted."""

    @property
    def confirmed(self) -> bool:
        """Whether the interval of the difference contains zero."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class SeedCheck:
    """Whether seeds that the ceiling has never seen correlate with the mean over its seeds as it predicts."""

    single: Agreement
    """One fresh seed against the mean of R: predicted sqrt(r) sqrt(reliability of R)."""
    mean: Agreement
    """The mean of K fresh seeds against the mean of R: predicted sqrt(reliability of K) sqrt(reliability of R)."""
    subsets: int
    """Subsets that both have runs of."""
    seeds: int
    """R."""
    fresh_seeds: int
    """K."""


def seed_check(runs: Runs, fresh: Runs, *, level: float = 0.95) -> SeedCheck:
    """Compare an independent set of seeds on the same subsets with what the ceiling of `runs` predicts.

    Subsets are matched by their masks; those with fewer seeds than the others of their design are left out. Raises
    DataError if fewer than 5 are in both, if `runs` has fewer than 2 seeds, or if `fresh` repeats runs of `runs`.

    >>> import numpy as np
    >>> from estimators import Runs
    >>> from estimators.scores import seed_check
    >>> rng = np.random.default_rng(0)
    >>> masks, subsets = rng.random((50, 8)) < 0.5, np.arange(50)
    >>> seeds = (masks @ rng.normal(size=(8, 30)))[:, None] + rng.normal(size=(50, 3, 30))  # 50 subsets, 3 seeds, 30 queries
    >>> known = Runs("score", "subsets", "margin", masks.repeat(2, axis=0), seeds[:, :2].reshape(100, 30), subsets.repeat(2),
    ...              np.tile([0, 1], 50))
    >>> fresh = Runs("again", "subsets", "margin", masks, seeds[:, 2], subsets, 0 * subsets)
    >>> found = seed_check(known, fresh)
    >>> round(found.single.measured, 2), round(found.single.predicted, 2), found.single.confirmed
    (0.67, 0.68, True)
    """
    _refuse_same_runs(runs, fresh)
    known, other = _match(complete_block(runs), complete_block(fresh))
    seeds, s, _ = known.shape
    if seeds < 2 or s < FEWEST:
        raise DataError(
            f"a seed check needs 2 seeds of {runs.design!r} on {FEWEST} subsets that {fresh.design!r} has too,"
            f" found {seeds} on {s}"
        )
    jackknife = Jackknife.of(s)
    target = known.mean(axis=0)
    single = np.mean([resampled_spearman(one, target, jackknife.counts) for one in other], axis=0)
    mean = resampled_spearman(other.mean(axis=0), target, jackknife.counts)
    r, law = resampled_pairs(known, jackknife.counts), Law.of(s, seeds)

    def agreement(measured: Floats, k: float) -> Agreement:
        return _agreement(measured, r, law, jackknife, lambda one: _expected(one, k, seeds), level)

    return SeedCheck(agreement(single, 1), agreement(mean, len(other)), subsets=s, seeds=seeds, fresh_seeds=len(other))


def _expected(reliability: Floats, k: float, seeds: float) -> Floats:
    """Return how the mean of k seeds correlates with the mean of `seeds` others, given the reliability of one."""
    found: Floats = np.sqrt(spearman_brown(reliability, k) * spearman_brown(reliability, seeds))
    return found


def _agreement(
    measured: Floats, r: Floats, law: Law, jackknife: Jackknife, pearson: Callable[[Floats], Floats], level: float
) -> Agreement:
    """Compare a measured correlation with what r predicts, both (1 + g, t): the data, and parts of it.

    The error of the difference is that of its first order in r, query by query.
    """
    from scipy.special import ndtri

    predicted = mean_over_queries(r[0], law, pearson, math.sqrt(jackknife.covariance(r, r)))
    apart = measured - np.sign(r) * pearson(np.abs(r))
    reach = float(ndtri((1 + level) / 2)) * math.sqrt(jackknife.covariance(apart, apart))
    found = float(measured[0].mean())
    return Agreement(found, predicted, found - predicted - reach, found - predicted + reach)


def _match(known: Block, other: Block) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the outputs of both blocks on the subsets they share, in one order."""
    places = {mask: place for place, mask in enumerate(packed(known.masks))}
    pairs = [(places[mask], place) for place, mask in enumerate(packed(other.masks)) if mask in places]
    here, there = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return known.outputs[:, here], other.outputs[:, there]


def _refuse_same_runs(runs: Runs, fresh: Runs) -> None:
    if runs.design != fresh.design:
        return
    known = set(zip(runs.subsets.tolist(), runs.repeats.tolist(), strict=True))
    again = sum(run in known for run in zip(fresh.subsets.tolist(), fresh.repeats.tolist(), strict=True))
    if again:
        raise DataError(f"{again} of the fresh runs are the very runs of {runs.design!r} they should check")
