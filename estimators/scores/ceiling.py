"""The noise ceiling: what a perfect predictor of the expected output would reach on runs with few seeds a subset.

Two trainings on the same subset differ by their seeds, so even the exact expected output does not rank the measured
ones perfectly. With r the mean Spearman correlation between single seeds, the mean of R seeds has by Spearman-Brown
the reliability R r / (1 + (R - 1) r), the share of its variance that the subset explains; a perfect predictor
correlates with it by the square root of that (Spearman 1910, Brown 1910; the correction is exact for Pearson's and
close for rank correlations).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs
from estimators.scores.bootstrap import Resamples
from estimators.scores.overlap import packed
from estimators.scores.spearman import resampled_pairs, resampled_spearman
from workers.errors import DataError


@dataclass(frozen=True)
class Ceiling:
    """The noise ceiling of a design's runs; NaN, and `reason` says why, where there is nothing to compare."""

    value: float
    """Mean of `per_query`."""
    low: float
    high: float
    per_query: NDArray[np.float64]
    """(t,) square root of `reliability`."""
    reliability: NDArray[np.float64]
    """(t,) of the mean over the seeds."""
    r: NDArray[np.float64]
    """(t,) mean Spearman correlation between single seeds, over subsets; clipped to [0, 1] before it is used."""
    seeds: float
    """R: seeds a subset (their harmonic mean where subsets differ)."""
    subsets: int
    """Subsets with enough seeds to be compared, those that r is measured on."""
    reason: str = ""


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


def spearman_brown(r: NDArray[np.float64], seeds: float) -> NDArray[np.float64]:
    """Return the reliability of the mean of `seeds` seeds; `r` is clipped to [0, 1]."""
    r = np.clip(r, 0, 1)
    return seeds * r / (1 + (seeds - 1) * r)


def noise_ceiling(runs: Runs, *, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Ceiling:
    """Return the noise ceiling of `runs`, with a bootstrap interval over subsets and queries.

    Seeds of one subset are exchangeable. Where subsets differ in their number of seeds, r is measured on the largest
    complete block (subsets x seeds) and R is the harmonic mean, which is what the noise of the means goes by.

    >>> import numpy as np
    >>> from estimators import Runs
    >>> from estimators.scores import noise_ceiling
    >>> outputs = np.array([[1.0], [1.0], [2.0], [2.0], [3.0], [4.0], [4.0], [3.0]])  # 4 subsets, 2 seeds each
    >>> masks, subsets, repeats = np.eye(4, dtype=bool).repeat(2, axis=0), np.repeat(range(4), 2), np.tile([0, 1], 4)
    >>> ceiling = noise_ceiling(Runs("score", "subsets", "margin", masks, outputs, subsets, repeats))
    >>> ceiling.r.round(2).tolist()  # the seeds agree but for the order of the last two subsets
    [0.8]
    >>> ceiling.reliability.round(2).tolist(), round(ceiling.value, 2)  # 2r / (1 + r), and its square root
    ([0.89], 0.94)
    """
    block, seeds = _complete(runs), seeds_per_subset(runs)
    r_seeds, s, t = block.outputs.shape
    if r_seeds < 2 or s < 2:
        reason = f"needs 2 subsets with 2 seeds each, {runs.design!r} has {int((seeds > 1).sum())}"
        nothing = np.full(t, np.nan)
        return Ceiling(np.nan, np.nan, np.nan, nothing, nothing, nothing, _harmonic(seeds), 0, reason)
    drawn = Resamples.draw(s, t, resamples, seed)
    r = resampled_pairs(block.outputs, drawn.rows)
    reliability = spearman_brown(r, _harmonic(seeds))
    ceilings = np.sqrt(reliability)
    value, low, high = drawn.estimate(ceilings, level)
    return Ceiling(value, max(low, 0.0), high, ceilings[0], reliability[0], r[0], _harmonic(seeds), s)


def seed_check(runs: Runs, fresh: Runs, *, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> SeedCheck:
    """Compare an independent set of seeds on the same subsets with what the ceiling of `runs` predicts.

    Subsets are matched by their masks; those with fewer seeds than the others of their design are left out. Raises
    DataError if fewer than 2 are in both, if `runs` has fewer than 2 seeds, or if `fresh` repeats runs of `runs`.

    >>> import numpy as np
    >>> from estimators import Runs
    >>> from estimators.scores import seed_check
    >>> masks, four = np.eye(4, dtype=bool), np.arange(4)
    >>> outputs = np.array([[1.0], [1.0], [2.0], [2.0], [3.0], [4.0], [4.0], [3.0]])  # 4 subsets, 2 seeds each
    >>> known = Runs("score", "subsets", "margin", masks.repeat(2, axis=0), outputs, four.repeat(2), np.tile([0, 1], 4))
    >>> fresh = Runs("again", "subsets", "margin", masks, np.array([[1.0], [3.0], [2.0], [4.0]]), four, 0 * four)
    >>> found = seed_check(known, fresh)
    >>> round(found.single.measured, 2), round(found.single.predicted, 2), found.single.confirmed
    (0.63, 0.84, True)
    """
    _refuse_same_runs(runs, fresh)
    known, other = _match(_complete(runs), _complete(fresh))
    seeds, s, t = known.shape
    if seeds < 2 or s < 2:
        raise DataError(
            f"a seed check needs 2 seeds of {runs.design!r} on 2 subsets that {fresh.design!r} has too,"
            f" found {seeds} on {s}"
        )
    drawn = Resamples.draw(s, t, resamples, seed)
    target = known.mean(axis=0)
    single = np.mean([resampled_spearman(one, target, drawn.rows) for one in other], axis=0)
    mean = resampled_spearman(other.mean(axis=0), target, drawn.rows)
    r = resampled_pairs(known, drawn.rows)
    of_known = spearman_brown(r, seeds)
    return SeedCheck(
        single=_agreement(drawn, single, np.sqrt(spearman_brown(r, 1) * of_known), level),
        mean=_agreement(drawn, mean, np.sqrt(spearman_brown(r, len(other)) * of_known), level),
        subsets=s,
        seeds=seeds,
        fresh_seeds=len(other),
    )


def seeds_per_subset(runs: Runs) -> NDArray[np.int64]:
    """Return (s,) how many runs each subset has."""
    return np.unique(runs.subsets, return_counts=True)[1]


def _harmonic(seeds: NDArray[np.int64]) -> float:
    """Return the harmonic mean, to the digit where all are equal; 0 of nothing."""
    if not len(seeds) or seeds.min() == seeds.max():
        return float(seeds.max(initial=0))
    return float(1 / np.mean(1 / seeds))


@dataclass(frozen=True)
class _Block:
    """Runs of s subsets with R seeds each."""

    outputs: NDArray[np.float64]
    """(R, s, t)."""
    masks: NDArray[np.bool_]
    """(s, n)."""


def _complete(runs: Runs) -> _Block:
    """Return the complete block of subsets x seeds with the most pairs of seeds to compare with one another."""
    order = np.lexsort((runs.repeats, runs.subsets))
    _, first, inverse, counts = np.unique(
        runs.subsets[order], return_index=True, return_inverse=True, return_counts=True
    )
    choices = np.unique(counts)
    size = [(counts >= seeds).sum() * (seeds - 1) for seeds in choices]
    seeds = int(choices[int(np.argmax(size))]) if len(choices) else 0
    nth = np.arange(len(order)) - first[inverse]
    kept = order[(nth < seeds) & (counts[inverse] >= seeds)]
    outputs = runs.outputs[kept].astype(np.float64).reshape(-1, max(seeds, 1), runs.outputs.shape[1])
    return _Block(outputs.transpose(1, 0, 2), runs.masks[kept[:: max(seeds, 1)]])


def _match(known: _Block, other: _Block) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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


def _agreement(
    drawn: Resamples, measured: NDArray[np.float64], predicted: NDArray[np.float64], level: float
) -> Agreement:
    """Compare two statistics (1 + b, t) of the same resamples."""
    difference = drawn.estimate(measured - predicted, level)
    return Agreement(float(measured[0].mean()), float(predicted[0].mean()), difference.low, difference.high)
