"""What a score stands on: which subsets, and what was left out or ranks nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs
from estimators.scores.seeds import seeds_per_subset


@dataclass(frozen=True)
class Basis:
    """The regime of a score, and what is missing from it; NaN (or "") where nobody knows, or where it means nothing."""

    alpha: float = math.nan
    """Fraction of the examples that a subset keeps, the mean over the subsets."""
    order: str = ""
    """Whose batches a run takes: `own` (its subset's) or `shared` (those of the full set)."""
    subsets_left_out: float = math.nan
    """Subsets (or left-out examples) that were planned and have no finished run."""
    subsets_with_fewer_seeds: float = math.nan
    """Subsets with fewer finished runs than others have."""
    subsets_not_compared: float = math.nan
    """Subsets with finished runs that a seed check leaves out: they have fewer than others, or only one design has any."""
    queries_left_out: float = math.nan
    """Queries that the value is not computed on."""
    constant_predictions: float = math.nan
    """Queries of which the attribution predicts the same for all subsets: nothing is ranked."""
    constant_outputs: float = math.nan
    """Queries whose measured output is the same for all subsets."""

    @classmethod
    def of(cls, runs: Runs, planned: int | None = None) -> Basis:
        """Return what the runs say, given how many subsets their design has.

        >>> import numpy as np
        >>> from estimators import Runs
        >>> from estimators.scores import Basis
        >>> masks = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]], dtype=bool)  # the first subset has two seeds
        >>> runs = Runs("score", "subsets", "margin", masks, np.zeros((3, 1)), np.array([0, 0, 1]), np.array([0, 1, 0]))
        >>> basis = Basis.of(runs, planned=4)
        >>> basis.alpha, basis.subsets_left_out, basis.subsets_with_fewer_seeds
        (0.5, 2, 1)
        """
        seeds = seeds_per_subset(runs)
        left_out = math.nan if planned is None else planned - len(seeds)
        return cls(kept(runs), runs.order, left_out, int((seeds < seeds.max(initial=0)).sum()))


def kept(runs: Runs) -> float:
    """Return the fraction of the examples that a subset keeps, the mean over the subsets; NaN of none."""
    _, first = np.unique(runs.subsets, return_index=True)
    return float(runs.masks[first].mean(dtype=np.float64)) if len(first) else math.nan


def constant(values: NDArray[np.float64]) -> int:
    """Return how many columns of `values` (s, t) are the same in all rows."""
    return int((np.ptp(values, axis=0) == 0).sum())
