"""What leaving something out does: runs of the full set against runs without an example, or without a group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs
from workers.errors import DataError


@dataclass(frozen=True)
class Effects:
    """Measured effects of including k examples, or k groups."""

    keys: NDArray[np.int64]
    """(k,) what was left out: the examples or the groups' numbers, ascending."""
    values: NDArray[np.float64]
    """(k, t)."""
    standard_error: NDArray[np.float64]
    """(k, t); NaN where there are fewer than 2 seeds."""
    paired: NDArray[np.bool_]
    """(k,) whether the standard error is that of paired differences."""
    degrees_of_freedom: float
    """Those of the standard error that has fewest, infinite when there is no standard error."""


def effects_of(keys: NDArray[np.int64], left_out: Runs, full: Runs) -> Effects:
    """Return mean f(all) - mean f(all without the key's examples), given which key (m,) each run left out.

    Standard errors are those of paired differences where a key's runs have exactly the repeats of the full runs, else
    Welch's. Raises DataError if a run of `full` does not see all examples, or a design has no finished run.
    """
    if not full.masks.all():
        raise DataError(f"design {full.design!r}: some of its runs do not see all examples, expected full runs")
    if not len(full.outputs) or not len(left_out.outputs):
        raise DataError(f"designs {full.design!r} and {left_out.design!r} need finished runs, one of them has none")
    whole, without = full.outputs.astype(np.float64), left_out.outputs.astype(np.float64)
    groups = _Groups.of(keys)
    mean, error = groups.mean_and_error(without)
    own = _Groups.of(np.zeros(len(whole), dtype=np.int64))
    whole_mean, whole_error = own.mean_and_error(whole)
    paired, partner = _pairing(left_out.repeats, full.repeats, groups)
    _, paired_error = groups.mean_and_error(whole[partner] - without)
    standard_error = np.where(paired[:, None], paired_error, np.hypot(error, whole_error))
    # Welch's degrees of freedom are never fewer than those of the smaller side.
    seeds = np.minimum(groups.counts, len(whole))
    freedom = float(seeds[seeds > 1].min() - 1) if (seeds > 1).any() else math.inf
    return Effects(groups.keys, whole_mean - mean, standard_error, paired, freedom)


@dataclass(frozen=True)
class _Groups:
    """Rows grouped by a key."""

    keys: NDArray[np.int64]
    """(k,) the different keys, ascending."""
    inverse: NDArray[np.int64]
    """(m,) the group of each row."""
    counts: NDArray[np.int64]
    """(k,) rows of each group."""

    @classmethod
    def of(cls, key: NDArray[np.int64]) -> _Groups:
        return cls(*np.unique(key, return_inverse=True, return_counts=True))

    def mean(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (k, t) means of (m, t) rows."""
        order = np.argsort(self.inverse, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        return np.add.reduceat(rows[order], starts, axis=0) / self.counts[:, None]

    def mean_and_error(self, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the means (k, t) and their standard errors, NaN for groups of one."""
        mean = self.mean(rows)
        square = self.mean((rows - mean[self.inverse]) ** 2)
        return mean, np.sqrt(square / np.where(self.counts > 1, self.counts - 1, np.nan)[:, None])


def _pairing(
    repeats: NDArray[np.int64], full: NDArray[np.int64], groups: _Groups
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which groups have exactly the full runs' repeats (k,), and each run's full run of the same repeat (m,).

    Runs without such a partner point at an arbitrary one; their group is then not paired.
    """
    order = np.argsort(full)
    place = np.minimum(np.searchsorted(full, repeats, sorter=order), len(full) - 1)
    partner = order[place]
    matched = np.bincount(groups.inverse, full[partner] == repeats)
    pairs = np.unique(np.stack([groups.inverse, repeats]), axis=1)[0]
    distinct = np.bincount(pairs, minlength=len(groups.keys))
    each_once = len(np.unique(full)) == len(full)
    paired = (matched == len(full)) & (groups.counts == len(full)) & (distinct == len(full)) & each_once
    return paired, partner
