"""The noise ceiling of the spread: what a perfect predictor of it would reach, measured with finitely many seeds.

A standard deviation over R seeds is off by chance, so that even the exact spread does not rank the measured ones perfectly. How
much they tell is had from two halves of the seeds: over subsets, their spreads correlate by as much as the subset explains.

In ranks, and where the spread differs little, chance counts as a variance of the log variance of R normal outputs of

    noise(R) = (G((R - 1) / 2) / G(R / 2))^2        (G the gamma function)

which is 1 / (4 pi (integral of f^2)^2) for its density f, the asymptotic efficiency of ranks (Hodges & Lehmann 1956); the
variance itself, trigamma((R - 1) / 2), is larger by its long lower tail, which ranks do not see. So if halves correlate by p, all
seeds together are as reliable as spearman_brown(p, noise of a half / noise of all).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs
from estimators.scores.agreement import FEWEST, Law, spearman_brown
from estimators.scores.ceiling import Ceiling, ceiling_of
from estimators.scores.jackknife import Jackknife
from estimators.scores.seeds import complete_block, seeds_per_subset
from estimators.scores.spearman import resampled_spearman

FEWEST_SEEDS = 4
"""Seeds a subset below which there are no two halves with a spread each."""
_SPLITS = 10
_INDEPENDENT = {
    4: 1.74,
    5: 2.44,
    6: 2.1,
    7: 2.06,
}  # seeds -> as many independent splits tell as much as all (simulated)
_OF_MORE_SEEDS = 1.9


def spread_ceiling(runs: Runs, *, level: float = 0.95) -> Ceiling:
    """Return the noise ceiling of the spread over the seeds of `runs`, with its interval over other subsets and queries.

    r is the mean over splits of the seeds into halves of Spearman's correlation between the spreads of the two, over the largest
    complete block (subsets x seeds). It is 0 on average where no subset is less steady than another, whatever the outputs'
    distribution; `noise` supposes normal ones.

    >>> import numpy as np
    >>> from estimators import Runs
    >>> from estimators.scores import spread_ceiling
    >>> spread, seeds = np.arange(1.0, 9), np.array([-3.0, -1.0, 1.0, 3.0])  # 8 subsets with ever less steady outputs
    >>> masks, outputs = np.eye(8, dtype=bool).repeat(4, axis=0), np.outer(spread, seeds).reshape(32, 1)
    >>> runs = Runs("score", "subsets", "margin", masks, outputs, np.arange(32) // 4, np.arange(32) % 4)
    >>> ceiling = spread_ceiling(runs)
    >>> ceiling.r.round(2).tolist(), ceiling.nothing_to_find
    ([1.0], False)
    >>> few = Runs("score", "subsets", "margin", masks[:24], outputs[:24], np.arange(24) // 3, np.arange(24) % 3)
    >>> spread_ceiling(few).reason
    "needs 5 subsets with 4 seeds each, 'score' has 0"
    """
    block = complete_block(runs)
    seeds, s, t = block.outputs.shape
    if seeds < FEWEST_SEEDS or s < FEWEST:
        enough = int((seeds_per_subset(runs) >= FEWEST_SEEDS).sum())
        reason = f"needs {FEWEST} subsets with {FEWEST_SEEDS} seeds each, {runs.design!r} has {enough}"
        return Ceiling.unknown(t, seeds, reason)
    counts = Jackknife.of(s).counts
    r = np.mean(
        [
            resampled_spearman(block.outputs[one].var(axis=0), block.outputs[other].var(axis=0), counts)
            for one, other in halves(seeds)
        ],
        axis=0,
    )
    # Where halves are of two sizes, the correlation is the geometric mean of their reliabilities.
    gain = math.sqrt(noise(seeds // 2) * noise(seeds - seeds // 2)) / noise(seeds)
    law = law_of_halves(s, seeds)
    return ceiling_of(r, law, lambda half: np.sqrt(spearman_brown(half, gain)), seeds, block.subsets, level)


def law_of_halves(subsets: int, seeds: int) -> Law:
    """Return the law of the mean correlation over the splits of that many seeds."""
    return Law.of(subsets, 2, averaged=_INDEPENDENT.get(seeds, _OF_MORE_SEEDS))


def noise(seeds: int) -> float:
    """Return what chance adds to the variance of the log variance of that many seeds, as ranks see it.

    >>> from estimators.scores.spread_ceiling import noise
    >>> [round(noise(seeds), 3) for seeds in (2, 4, 20)]
    [3.142, 0.785, 0.108]
    """
    return math.exp(2 * (math.lgamma((seeds - 1) / 2) - math.lgamma(seeds / 2)))


def halves(seeds: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return splits of that many seeds into halves: all of them, or 10 random ones, always the same, where there are more."""
    half, even, places = seeds // 2, seeds % 2 == 0, np.arange(seeds)
    there_are = math.comb(seeds, half) // (2 if even else 1)
    rng, chosen = np.random.default_rng(0), dict[tuple[int, ...], None]()
    while len(chosen) < min(_SPLITS, there_are):
        one = rng.permutation(seeds)[:half]
        if even and 0 not in one:  # which of two halves comes first makes no other split
            one = np.setdiff1d(places, one)
        chosen.setdefault(tuple(sorted(one.tolist())))
    return [(np.array(one), np.setdiff1d(places, one)) for one in chosen]
