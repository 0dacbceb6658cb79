"""How much the seeds of a subset agree, given how reliable a single one is: expectation and sampling law of Spearman's r.

The reliability of a query is the share of a single seed's variance that the subset explains. With normal outputs the
Pearson correlation of two seeds is the reliability itself; everything here says what that becomes in ranks, over s subsets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST = 5
"""Subsets below which the law of r is not known well enough to be used."""
_POINTS = 46
_DENSE = 4.0
_LARGEST = 0.998


def expected_spearman(pearson: Floats, subsets: int) -> Floats:
    """Return what Spearman's correlation of s normal pairs of that Pearson correlation is on average (Moran 1948).

    >>> import numpy as np
    >>> from estimators.scores.agreement import expected_spearman
    >>> expected_spearman(np.array([0.0, 0.5, 1.0]), 20).round(3).tolist()
    [0.0, 0.461, 1.0]
    """
    s = subsets
    found: Floats = 6 / (np.pi * (s + 1)) * (np.arcsin(pearson) + (s - 2) * np.arcsin(pearson / 2))
    return found


def spearman_brown(reliability: Floats, seeds: float) -> Floats:
    """Return the reliability of the mean of `seeds` seeds, given that of one, in [0, 1] (Spearman 1910, Brown 1910)."""
    return seeds * reliability / (1 + (seeds - 1) * reliability)


@dataclass(frozen=True)
class Law:
    """The law of r, the mean correlation of all pairs of R seeds over s subsets, for a grid of k reliabilities.

    z = log((1 + (R - 1) r) / (1 - r)) / 2 is close to normal (Fisher 1925 for intraclass correlations). Its variance is that of
    ranks (Bonett & Wright 2000), and its mean makes r what Moran's formula says, to second order.

    The grid goes below 0, where no reliability is: there r is what a positive one's would be with its sign turned. Estimates
    are free to fall on either side of no signal, and their mean is then right where there is none.
    """

    subsets: int
    seeds: int
    reliability: Floats
    """(k,) ascending; minus the reliability where below 0."""
    r: Floats
    """(k,) the expectation of r."""
    centre: Floats
    """(k,) the mean of z."""
    variance: Floats
    """(k,) of z."""

    @classmethod
    def of(cls, subsets: int, seeds: int, averaged: float = 1.0) -> Law:
        """Return the law for s >= 5 subsets and R >= 2 seeds; r tells as much as `averaged` independent ones of its kind."""
        above = _LARGEST * np.sinh(np.linspace(0, _DENSE, _POINTS)[1:]) / math.sinh(_DENSE)
        # s - 3 for a pair, as in Bonett & Wright; simulated for more seeds, and for averages
        freedom = averaged * subsets - 2 - 2 / seeds
        six_deviations = 6 / math.sqrt(freedom * seeds * (seeds - 1) / 2)
        below = above[above < min(six_deviations, 0.95 / (seeds - 1))]
        signed = np.concatenate([-below[::-1], [0.0], above])
        r = expected_spearman(signed, subsets)
        variance = seeds / (2 * (seeds - 1)) * (1 + r**2 / 2) / freedom
        centre = fisher_z(r, seeds) + variance / seeds * (2 - seeds + 2 * (seeds - 1) * r)
        return cls(subsets, seeds, signed, r, centre, variance)


def fisher_z(r: Floats, seeds: int) -> Floats:
    """Return Fisher's transform of intraclass correlations among `seeds` seeds; the ends of the range are drawn in a little."""
    inside = np.clip(r, -1 / (seeds - 1) + 1e-6, 1 - 1e-6)
    found: Floats = 0.5 * np.log((1 + (seeds - 1) * inside) / (1 - inside))
    return found
