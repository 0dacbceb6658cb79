"""Semivalues from runs of prefixes of random permutations (Ghorbani & Zou 2019, Data Shapley, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs
from estimators.values.intervals import Moments
from workers.errors import DataError

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Ends:
    """Outputs of no data and of all data: where every permutation starts and, if truncated, ends."""

    empty: NDArray[np.float64] | None
    """(t,); used where a permutation has no run of the empty prefix."""
    full: NDArray[np.float64] | None
    """(t,); used where a permutation was truncated."""
    full_error: NDArray[np.float64] | None = None
    """(t,) standard error of `full`, None where unknown."""


@dataclass(frozen=True)
class PermutationRuns:
    """One permutation, seen at the prefixes that were trained."""

    number: int
    bounds: NDArray[np.int64]
    """(s + 1,) sizes of the prefixes, ascending from 0 to n."""
    step: NDArray[np.int64]
    """(n,) between which bounds each example was added, 0 .. s - 1."""
    outputs: NDArray[np.float64]
    """(s + 1, t) at the bounds, averaged over seeds."""
    truncated: bool
    """Whether the last output is that of the full set, as this permutation was not trained to its end."""

    def shares(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (s,): the weight of a step's gain that each of its examples gets, from weights of positions (n,)."""
        running = np.concatenate([[0.0], np.cumsum(weights)])
        count = np.diff(self.bounds)
        found: NDArray[np.float64] = np.diff(running[self.bounds]) / count**2
        return found

    def values(self, weights: NDArray[np.float64], columns: slice = slice(None)) -> NDArray[np.float64]:
        """Return (n, t): every example's share of the gain of the step that added it."""
        gains = np.diff(self.outputs[:, columns], axis=0) * self.shares(weights)[:, None]
        return gains[self.step]

    def reliance(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,): by how much the values move with the output of the full set that closes a truncated permutation."""
        last = len(self.bounds) - 2
        return np.where(self.truncated & (self.step == last), self.shares(weights)[last], 0.0)


def permutations_of(runs: Runs, ends: Ends) -> list[PermutationRuns]:
    """Cut runs into permutations, ascending; rows of permutation -1 are left out.

    Raises DataError if the runs do not say which permutation they are of, if no permutation is finished, if one's
    subsets are not nested, or if an end is needed that is not known.
    """
    if runs.permutations is None:
        raise DataError(f"design {runs.design!r} does not say which permutation each of its runs belongs to")
    used = np.flatnonzero(runs.permutations >= 0)
    rows = used[np.argsort(runs.permutations[used], kind="stable")]
    numbers, first = np.unique(runs.permutations[rows], return_index=True)
    if not len(numbers):
        raise DataError(f"design {runs.design!r} has no finished permutation yet")
    return [
        _permutation(runs, int(number), own, ends)
        for number, own in zip(numbers, np.split(rows, first[1:]), strict=True)
    ]


def _permutation(runs: Runs, number: int, rows: NDArray[np.int64], ends: Ends) -> PermutationRuns:
    """Average over seeds, check that prefixes are nested, and put both ends on."""
    n = runs.masks.shape[1]
    sizes, first, inverse, counts = np.unique(
        runs.masks[rows].sum(axis=1), return_index=True, return_inverse=True, return_counts=True
    )
    outputs = np.zeros((len(sizes), runs.outputs.shape[1]))
    np.add.at(outputs, inverse, runs.outputs[rows].astype(np.float64))
    outputs /= counts[:, None]
    prefixes = runs.masks[rows[first]]
    if (runs.masks[rows] != prefixes[inverse]).any() or (prefixes[:-1] & ~prefixes[1:]).any():
        raise DataError(f"design {runs.design!r}: the subsets of permutation {number} are not prefixes of one order")
    if sizes[0] > 0:
        sizes, outputs = np.append(0, sizes), np.vstack([_known(ends.empty, "no data", "empty", runs), outputs])
    else:
        prefixes = prefixes[1:]
    truncated = bool(sizes[-1] < n)
    if truncated:
        sizes, outputs = np.append(sizes, n), np.vstack([outputs, _known(ends.full, "the full set", "full", runs)])
    return PermutationRuns(number, sizes, (~prefixes).sum(axis=0), outputs, truncated)


def _known(outputs: NDArray[np.float64] | None, what: str, key: str, runs: Runs) -> NDArray[np.float64]:
    if outputs is None:
        hint = "set `empty` to its output" if key == "empty" else "add a design of kind full"
        raise DataError(
            f"design {runs.design!r}: its permutations need the output of {what}, which no run gives; {hint}"
        )
    return outputs


def units_of(permutations: Sequence[PermutationRuns], antithetic: bool) -> list[list[PermutationRuns]]:
    """Return the independent parts: pairs 2k and 2k + 1 of antithetic permutations (or what is there of them), or each."""
    units: dict[int, list[PermutationRuns]] = {}
    for permutation in permutations:
        units.setdefault(permutation.number // 2 if antithetic else permutation.number, []).append(permutation)
    return list(units.values())


def permutation_values(
    units: Sequence[Sequence[PermutationRuns]],
    sizes: NDArray[np.float64],
    full_error: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the semivalues (n, t) with these weights of sizes (n,), and their standard errors over the units.

    In a random permutation the position of an example is uniform, so that weighing its gain at position j (from 0) by
    n p(j) gives the semivalue. The gain of examples that were added together is shared among them equally, each with
    the mean weight of their positions. `full_error` (t,) is the error that truncated permutations have in common, since one
    output of the full set closes them all. Standard errors are NaN for a single unit.
    """
    n, t = len(sizes), units[0][0].outputs.shape[1]
    weights = n * sizes
    values, errors = np.empty((n, t)), np.empty((n, t))
    for columns in _blocks(n, t):
        moments = Moments(values[:, columns].shape)
        for unit in units:
            moments.add(np.mean([permutation.values(weights, columns) for permutation in unit], axis=0))
        values[:, columns], errors[:, columns] = moments.mean, moments.standard_error()
    if full_error is not None:
        reliance = np.mean(
            [np.mean([permutation.reliance(weights) for permutation in unit], axis=0) for unit in units], axis=0
        )
        errors = np.hypot(errors, reliance[:, None] * full_error)
    return values, errors


def _blocks(n: int, t: int) -> Iterator[slice]:
    step = max(1, _BLOCK // n)
    return (slice(start, min(start + step, t)) for start in range(0, t, step))
