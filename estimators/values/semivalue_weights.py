"""Semivalues: averages of what an example adds to a subset, that differ in how they weigh the subset's size.

    value(i) = sum over sizes s of p(s) * mean over subsets S of s other examples of (U(S + i) - U(S)),    sum of p = 1

(Dubey, Neyman & Weber 1981). Each function returns p, shape (n,), for s = 0 .. n - 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shapley_sizes(n: int) -> NDArray[np.float64]:
    """Every size alike (Shapley 1953).

    >>> from estimators.values.semivalue_weights import shapley_sizes
    >>> shapley_sizes(4).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    return np.full(n, 1 / n)


def beta_sizes(n: int, alpha: float, beta: float) -> NDArray[np.float64]:
    """Beta-binomial: C(n - 1, s) B(s + beta, n - 1 - s + alpha) / B(beta, alpha), mean (n - 1) beta / (alpha + beta).

    Kwon & Zou 2022, Beta Shapley, section 3, with s = j - 1: their w(j) is n p(j - 1). Large alpha looks at small
    subsets; (1, 1) is Shapley's.

    >>> from estimators.values.semivalue_weights import beta_sizes
    >>> beta_sizes(4, 1, 1).round(2).tolist(), beta_sizes(4, 16, 1).round(2).tolist()
    ([0.25, 0.25, 0.25, 0.25], [0.84, 0.14, 0.02, 0.0])
    """
    from scipy.stats import betabinom

    p: NDArray[np.float64] = betabinom.pmf(np.arange(n), n - 1, beta, alpha)
    return p


def banzhaf_sizes(n: int) -> NDArray[np.float64]:
    """Every subset alike, so that sizes are binomial with probability a half (Banzhaf 1965).

    >>> from estimators.values.semivalue_weights import banzhaf_sizes
    >>> banzhaf_sizes(3).round(2).tolist()
    [0.25, 0.5, 0.25]
    """
    from scipy.stats import binom

    p: NDArray[np.float64] = binom.pmf(np.arange(n), n - 1, 0.5)
    return p
