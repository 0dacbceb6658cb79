"""The mean over queries of a function of their reliabilities, from correlations r that are noisier than the reliabilities differ.

The ceiling is a mean of square roots, and a root is not linear: taken of one query's noisy r, clipped or not, it is biased
whatever the number of queries. So the roots are not taken query by query:

1. The *distribution* of the reliabilities over the queries is estimated, by maximum likelihood over all distributions on a grid
   (Kiefer & Wolfowitz 1956), given the law of r; the mean is taken over that distribution.
2. Maximum likelihood sees differences between queries where there are none: chance spreads r sometimes more and sometimes less
   than its law says, and it answers only more of it. What it answers to the expected spread is taken off, less of it the further
   the spread is from that, and where r spread less, the answer to as much more is subtracted: the whole is odd in the surplus.
3. The mean of r has an error too, and a root answers it with a bias of its own. For a normal error it is known and taken off.

Nothing is clipped at 0: over repetitions the result is right where there is no signal, and a single one may be below 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from estimators.scores.agreement import Floats, Law, expected_spearman, fisher_z
from estimators.scores.result import Estimate

_STEPS = 30  # stopped early: what differences r alone cannot tell is left as even as it began, which costs least bias
_SMOOTHNESS = 0.1
_TINY = 1e-8
_PARTS = 20
_BINS = 300


class _Pieces(NamedTuple):
    alike: float
    """What the mean would be if all queries were as reliable as their mean."""
    difference: float
    """What their differences change."""


def mean_over_queries(r: Floats, law: Law, pearson: Callable[[Floats], Floats], error: float) -> float:
    """Return the mean over queries of Spearman's correlation that belongs to each one's reliability.

    `r` (t,) is measured, with the standard error `error` of its mean; `pearson` maps reliabilities in [0, 1] to Pearson's
    correlation.
    """
    found = _pieces(r, law, _target(law, pearson))
    steepness = float(pearson(np.array([_TINY]))[0]) / np.sqrt(_TINY)  # of a root, near 0; 0 for what is smooth there
    unbiased = steepness * np.sqrt(error) * root_bias(float(r.mean()) / error) if error > 0 else 0.0
    return float(found.alike + found.difference + unbiased)


def deconvolve(r: Floats, law: Law, pearson: Callable[[Floats], Floats], error: float, level: float) -> Estimate:
    """Return `mean_over_queries` with its interval, cut to [0, 1]; the value is not cut.

    Two intervals are joined by the distances of their ends (MOVER, Zou & Donner 2008): that of queries which are all alike, from
    the interval of the mean r, and that of what their differences change.
    """
    from scipy.special import stdtrit

    target, mean = _target(law, pearson), float(r.mean())
    reach = float(
        stdtrit(min(law.subsets, _PARTS) - 1, (1 + level) / 2)
    )  # Student's: both errors come from so few parts
    spread, correlation = _errors(r, law, target, error)
    low, alike, high = np.interp([mean - reach * error, mean, mean + reach * error], law.r, target)
    below, above = (
        np.sqrt(apart**2 + (reach * spread) ** 2 + 2 * correlation * apart * reach * spread)
        for apart in (alike - low, high - alike)
    )
    value = mean_over_queries(r, law, pearson, error)
    return Estimate(value, float(np.clip(value - below, 0, 1)), float(np.clip(value + above, 0, 1)))


def _target(law: Law, pearson: Callable[[Floats], Floats]) -> Floats:
    """Return (k,) what is averaged, on the grid of the law: odd, as its r is."""
    found: Floats = np.sign(law.reliability) * expected_spearman(pearson(np.abs(law.reliability)), law.subsets)
    return found


def _errors(r: Floats, law: Law, target: Floats, error: float) -> tuple[float, float]:
    """Return the standard error of the difference and its correlation with the rest, by leaving out parts of the queries.

    Queries that share their subsets tell less than as many independent ones: the error grows by as much as that of the mean r.
    """
    if not r.std():
        return 0.0, 0.0
    t = len(r)
    parts = min(t, _PARTS)
    found = np.array([_pieces(r[np.arange(t) % parts != part], law, target) for part in range(parts)])
    found -= found.mean(axis=0)
    alike, difference = np.sqrt(np.square(found).sum(axis=0))
    shared = max(error**2 / (r.var(ddof=1) / t), 1.0)
    product = alike * difference
    correlation = float(found[:, 0] @ found[:, 1] / product) if product > 0 else 0.0
    return float(difference * np.sqrt((1 - 1 / parts) * shared)), correlation


def _pieces(r: Floats, law: Law, target: Floats) -> _Pieces:
    z, mean = fisher_z(r, law.seeds), float(r.mean())
    alike = float(np.interp(mean, law.r, target))
    found = float(z.var(ddof=1)) if len(z) > 1 else 0.0
    if found == 0:
        return _Pieces(alike, 0.0)
    expected = float(np.interp(mean, law.r, law.variance))

    def effect(variance: float) -> float:
        return _effect_of_spread(z.mean() + (z - z.mean()) * np.sqrt(variance / found), law, target)

    surplus = found - expected
    sampling = expected * np.sqrt(2 / (len(z) - 1))
    by_chance = np.exp(-0.5 * (surplus / sampling) ** 2) * effect(expected)
    return _Pieces(alike, float(np.sign(surplus) * (effect(expected + abs(surplus)) - by_chance)))


def _effect_of_spread(z: Floats, law: Law, target: Floats) -> float:
    """Return the mean of `target` over the distribution, less what it is at the distribution's mean."""
    weights = _distribution(z, law)
    return float(weights @ target - np.interp(weights @ law.r, law.r, target))


def _distribution(z: Floats, law: Law) -> Floats:
    """Return the weights (k,) of the grid's reliabilities, by expectation maximization from equal ones."""
    counts = np.ones(len(z))
    if len(z) > _BINS:
        counts, edges = np.histogram(z, _BINS)
        z, counts = (edges[1:] + edges[:-1])[counts > 0] / 2, counts[counts > 0].astype(np.float64)
    exponent = -0.5 * np.square(z[:, None] - law.centre) / law.variance - 0.5 * np.log(law.variance)
    likelihood = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    weights = np.full(len(law.centre), 1 / len(law.centre))
    for _ in range(_STEPS):
        weights = weights * ((counts / (likelihood @ weights)) @ likelihood) / counts.sum()
    return weights


def root_bias(x: float) -> float:
    """Return what to add to sign(x) sqrt(|x|), x normal with variance 1, for a mean of nearly sqrt(E x) where E x >= 0.

    No estimate is exactly unbiased (a root is no entire function); more of the bias can be removed only at the price of variance.
    """
    places, added = _root_bias_table()
    return float(np.sign(x) * np.interp(abs(x), places, added, right=0.0))


@cache
def _root_bias_table() -> tuple[Floats, Floats]:
    """Solve for the odd function (k,) that takes most of the bias away, its mean square as a penalty."""
    means = np.concatenate([np.linspace(0, 1.5, 40) ** 2, np.linspace(2.3, 12, 60)])
    places = np.arange(0.025, 18, 0.05)
    above, below = (np.exp(-0.5 * np.square(side * places - means[:, None])) for side in (1, -1))
    total = (above + below).sum(axis=1, keepdims=True)
    expectation = (above - below) / total
    missing = np.sqrt(means) - expectation @ np.sqrt(places)
    penalty = _SMOOTHNESS * len(means) * np.diag((above / total).mean(axis=0) + 1e-6)
    return places, np.linalg.solve(expectation.T @ expectation + penalty, expectation.T @ missing)
