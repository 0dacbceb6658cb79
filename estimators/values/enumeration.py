"""Exact semivalues of few examples, from the outputs of all their subsets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs
from workers.errors import DataError

LARGEST = 12
"""Examples whose 2**n subsets are still enumerated."""


@dataclass(frozen=True)
class Enumeration:
    """Outputs of all subsets of n examples; subset S is row sum over i in S of 2**i."""

    outputs: NDArray[np.float64]
    """(2**n, t) averaged over seeds."""
    variance: NDArray[np.float64] | None
    """(2**n, t) variances of these averages; None unless every trained subset has two seeds."""
    degrees_of_freedom: float
    """Seeds beyond the first, over all subsets; infinite without variances."""

    @classmethod
    def of(cls, runs: Runs, empty: NDArray[np.float64] | None) -> Enumeration:
        """Sort runs by subset; `empty` (t,) stands in for the empty one if no run has it.

        Raises DataError for more than 12 examples, or subsets without a run.
        """
        m, n = runs.masks.shape
        if n > LARGEST:
            raise DataError(f"design {runs.design!r}: {n} examples, exact enumeration takes at most {LARGEST}")
        code = runs.masks @ (1 << np.arange(n))
        counts = np.bincount(code, minlength=2**n)
        missing = int((counts[1:] == 0).sum()) + int(counts[0] == 0 and empty is None)
        if missing:
            raise DataError(
                f"design {runs.design!r}: {missing} of the {2**n} subsets of {n} examples have no finished run,"
                " exact enumeration needs all (the empty one may be given as `empty`)"
            )
        mean = np.zeros((2**n, runs.outputs.shape[1]))
        if empty is not None:
            mean[0] = empty
        trained = counts > 0
        sums = np.zeros_like(mean)
        np.add.at(sums, code, runs.outputs.astype(np.float64))
        mean[trained] = sums[trained] / counts[trained, None]
        if counts[trained].min() < 2:
            return cls(mean, None, math.inf)
        scatter = np.zeros_like(mean)
        np.add.at(scatter, code, (runs.outputs - mean[code]) ** 2)
        variance = scatter / np.where(trained, counts * (counts - 1.0), 1)[:, None]
        return cls(mean, variance, float(m - trained.sum()))

    def semivalue(self, sizes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return the values (n, t) with these weights of sizes (n,), and the standard errors that come from the seeds."""
        c = coefficients(sizes)
        return c @ self.outputs, None if self.variance is None else np.sqrt(c**2 @ self.variance)


def coefficients(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, 2**n): value(i) = sum over S of c[i, S] U(S), with p(|S| - 1) / C(n - 1, |S| - 1) if i is in S.

    Otherwise c[i, S] = -p(|S|) / C(n - 1, |S|).
    """
    from scipy.special import comb

    n = len(sizes)
    inside = (np.arange(2**n) >> np.arange(n)[:, None]) & 1 == 1
    size = inside.sum(axis=0)
    each = sizes / comb(n - 1, np.arange(n))
    # Index -1 at the empty subset and n at the full one are never chosen by `where`.
    found: NDArray[np.float64] = np.where(inside, each[size - 1], -each[np.minimum(size, n - 1)])
    return found
