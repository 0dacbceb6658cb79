"""Read runs block by block into statistics, keeping the held-out ones as bits: the only pass over the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from estimators.lasso.settings import Settings
from estimators.lasso.statistics import Floats, Statistics
from workers.errors import DataError

BLOCK = 4096
"""Rows of a block when the runs are in memory."""
FEWEST = 4
"""Fewest subsets a fit takes."""

Block = tuple[NDArray[np.bool_], NDArray[np.floating[Any]]]
"""Some consecutive runs: masks (b, n) bool and outputs (b, t)."""


@dataclass(frozen=True)
class Split:
    """Which runs choose lambda. All runs of a subset are on the same side."""

    parts: NDArray[np.int64]
    """(m,) fold of each run; -1 for runs that are in no fold (with one held-out part)."""
    subsets: NDArray[np.int64]
    """(m,) which subset each run is of."""
    folds: int
    seed: int

    @classmethod
    def draw(cls, subsets: NDArray[np.int64], settings: Settings, seed: int) -> Split:
        """Draw the split of runs of the given subsets (m,). Raises DataError when there are too few."""
        distinct = np.unique(subsets)
        count, folds = len(distinct), settings.folds or 1
        if count < max(FEWEST, folds):
            raise DataError(f"{count} subsets of finished runs: a datamodel needs at least {max(FEWEST, folds)}")
        order = np.random.default_rng(seed).permutation(count)
        label = np.full(count, -1)
        if settings.folds:
            label[order] = np.arange(count) % folds
        else:
            label[order[: min(max(1, round(settings.holdout * count)), count - 2)]] = 0
        return cls(label[np.searchsorted(distinct, subsets)], subsets, folds, seed)


@dataclass(frozen=True)
class Held:
    """Held-out subsets: what every lambda is judged on."""

    masks: NDArray[np.uint8]
    """(n, h) 0/1, a column a subset."""
    outputs: NDArray[np.floating[Any]]
    """(t, h) mean outputs over the subset's runs; NaN where none has one."""

    @classmethod
    def of(
        cls,
        bits: NDArray[np.uint8],
        n: int,
        outputs: NDArray[np.floating[Any]],
        subsets: NDArray[np.int64],
        dtype: DTypeLike,
    ) -> Held:
        """Average runs over their subsets: masks (r, ceil(n/8)) packed, outputs (r, t), subsets (r,)."""
        order, starts = _sorted(subsets)
        masks = np.unpackbits(bits[order[starts]], axis=1, count=n)
        return cls(np.ascontiguousarray(masks.T), _averaged(outputs, subsets, dtype))

    @classmethod
    def beside(
        cls, masks: NDArray[np.uint8], outputs: NDArray[np.floating[Any]], subsets: NDArray[np.int64], dtype: DTypeLike
    ) -> Held:
        """Average outputs (r, t) of runs whose held-out masks (n, h) are there already."""
        return cls(masks, _averaged(outputs, subsets, dtype))

    def take(self, queries: NDArray[np.int64]) -> Held:
        """Return the held-out outputs of some queries."""
        return Held(self.masks, self.outputs[queries])


def _sorted(subsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the runs in the order of their subsets (r,), and where each subset begins in it (h,)."""
    order = np.argsort(subsets, kind="stable")
    return order, np.flatnonzero(np.diff(subsets[order], prepend=subsets[order[0]] - 1))


def _averaged(
    outputs: NDArray[np.floating[Any]], subsets: NDArray[np.int64], dtype: DTypeLike
) -> NDArray[np.floating[Any]]:
    """Return outputs (r, t) averaged over the runs of each subset, (t, h), without NaN where one run has an output."""
    order, starts = _sorted(subsets)
    outputs = outputs[order]
    there = ~np.isnan(outputs)
    counts = np.add.reduceat(there.astype(np.int64), starts)
    sums = np.add.reduceat(np.where(there, outputs, 0), starts, dtype=np.float64)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return np.ascontiguousarray(means.T, dtype)


@dataclass(frozen=True)
class Grams:
    """What is the same for all queries, gathered once when they are fitted block by block."""

    grams: tuple[NDArray[np.int32], ...]
    """(n, n) of the runs in no fold, then of every fold's."""
    held: tuple[NDArray[np.uint8], ...]
    """(n, h) the held-out masks of every fold, a column a subset."""


@dataclass(frozen=True)
class Collected:
    """What a fit needs of the runs: the statistics of every part, and the held-out rows of every fold."""

    rest: Statistics
    """Runs in no fold."""
    parts: tuple[Statistics, ...]
    """Runs of every fold."""
    held: tuple[Held, ...]
    """The same runs as rows."""
    split: Split

    def fitting(self, fold: int) -> Statistics:
        """Return the statistics of all runs outside a fold."""
        others = [part for k, part in enumerate(self.parts) if k != fold]
        return Statistics.merge([self.rest, *others]) if others else self.rest

    def observed(self, fold: int) -> NDArray[np.int64]:
        """Return how many runs outside a fold each query has an output for, (t,)."""
        counts: NDArray[np.int64] = self.rest.observed()
        for k, part in enumerate(self.parts):
            if k != fold:
                counts = counts + part.observed()
        return counts

    def everything(self) -> Statistics:
        """Return the statistics of all runs."""
        return Statistics.merge([self.rest, *self.parts])

    def take(self, queries: NDArray[np.int64]) -> Collected:
        """Return what a fit of some queries needs: the unit of distribution and of resume."""
        parts = tuple(part.take(queries) for part in self.parts)
        return Collected(self.rest.take(queries), parts, tuple(h.take(queries) for h in self.held), self.split)


def blocks_of(masks: NDArray[np.bool_], outputs: NDArray[np.floating[Any]], rows: int = BLOCK) -> Iterator[Block]:
    """Cut runs in memory into blocks of at most `rows`."""
    for start in range(0, len(masks), rows):
        yield masks[start : start + rows], outputs[start : start + rows]


def collect(blocks: Iterable[Block], split: Split, settings: Settings, grams: Grams | None = None) -> Collected:
    """Read all runs once, in the order of the split's rows; with `grams`, what these hold is not computed again.

    Raises DataError when the blocks do not hold as many runs as the split, or disagree in shape.
    """
    reader: _Reader | None = None
    for masks, outputs in blocks:
        reader = reader or _Reader(masks, outputs, split, settings, grams)
        reader.read(masks, outputs)
    if reader is None or reader.row != len(split.parts):
        raise DataError(f"the blocks hold {reader.row if reader else 0} runs, the split is of {len(split.parts)}")
    return reader.finish()


class _Reader:
    """Where the next block goes."""

    def __init__(
        self,
        masks: NDArray[np.bool_],
        outputs: NDArray[np.floating[Any]],
        split: Split,
        settings: Settings,
        grams: Grams | None,
    ):
        shift = np.nan_to_num(mean_of_finite(outputs))
        self.shape, self.split, self.settings, self.row = (masks.shape[1], outputs.shape[1]), split, settings, 0
        self.grams = grams
        given = [None] * (1 + split.folds) if grams is None else grams.grams
        self.rest, *self.parts = [Statistics.empty(self.shape[0], shift, gram) for gram in given]
        self.bits: list[list[NDArray[np.uint8]]] = [[] for _ in range(split.folds)]
        self.outputs: list[list[NDArray[np.floating[Any]]]] = [[] for _ in range(split.folds)]

    def read(self, masks: NDArray[np.bool_], outputs: NDArray[np.floating[Any]]) -> None:
        """Take the next block."""
        if masks.dtype != np.bool_:
            raise DataError(f"masks are {masks.dtype}, expected bool: whether each example was in the subset")
        if len(masks) != len(outputs) or (masks.shape[1], outputs.shape[1]) != self.shape:
            raise DataError(
                f"a block has masks {masks.shape} and outputs {outputs.shape}, expected (b, n, t) = (b, *{self.shape})"
            )
        if np.isinf(outputs).any():
            raise DataError(f"outputs of runs {self.row} to {self.row + len(masks) - 1} contain infinities")
        part = self.split.parts[self.row : self.row + len(masks)]
        self.row += len(masks)
        for label, statistics in ((-1, self.rest), *enumerate(self.parts)):
            chosen = part == label
            if not chosen.any():
                continue
            x, y = masks[chosen], outputs[chosen]
            statistics.accumulate(x, y, self.settings.dtype, self.settings.device, gram=self.grams is None)
            if label >= 0:
                if self.grams is None:
                    self.bits[label].append(np.packbits(x, axis=1))
                self.outputs[label].append(y)

    def finish(self) -> Collected:
        """Return what was read."""
        held = []
        for fold in range(self.split.folds):
            subsets = self.split.subsets[self.split.parts == fold]
            outputs, dtype = np.concatenate(self.outputs[fold]), self.settings.dtype
            if self.grams is None:
                held.append(Held.of(np.concatenate(self.bits[fold]), self.shape[0], outputs, subsets, dtype))
            else:
                held.append(Held.beside(self.grams.held[fold], outputs, subsets, dtype))
        return Collected(self.rest, tuple(self.parts), tuple(held), self.split)


def mean_of_finite(outputs: NDArray[np.floating[Any]]) -> Floats:
    """Return the mean of every column (t,) over what is not NaN; NaN where nothing is."""
    there = ~np.isnan(outputs)
    counts = there.sum(0)
    sums = np.where(there, outputs, 0).sum(0, dtype=np.float64)
    means: Floats = np.divide(sums, counts, out=np.full(outputs.shape[1], np.nan), where=counts > 0)
    return means
