"""Spearman correlations of many queries under many resamples: sorted once, ranked exactly in each resample.

A resample is told by how often it takes each row. The average rank of row j in it is then

    rank_j = (rows below j) + (1 + rows equal to j) / 2,

and both counts are differences of one running sum over the sorted rows, so a resample costs O(s) a query and no sort.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 1 << 14
"""Elements (queries x rows) ranked at a time: what fits into a core's cache."""


class MidRanks:
    """Average ranks of each column of `values` (s, t), for any multiplicities of the rows."""

    def __init__(self, values: NDArray[np.floating]):
        columns = np.ascontiguousarray(values.T, dtype=np.float64)
        t, s = columns.shape
        self._order = np.argsort(columns, axis=1)
        ordered = np.take_along_axis(columns, self._order, axis=1)
        differs = ordered[:, 1:] != ordered[:, :-1]
        edge = np.ones((t, 1), dtype=bool)
        place = np.arange(s)
        first = np.maximum.accumulate(np.where(np.hstack([edge, differs]), place, 0), axis=1)
        last = np.where(np.hstack([differs, edge]), place + 1, s)
        last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
        offset = np.arange(t)[:, None] * (s + 1)
        self._below = np.empty_like(self._order)
        self._through = np.empty_like(self._order)
        np.put_along_axis(self._below, self._order, first + offset, axis=1)
        np.put_along_axis(self._through, self._order, last + offset, axis=1)
        self._running = np.zeros((t, s + 1))

    def unit(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (t, s) centred ranks of the resample, each times sqrt(count) and scaled to a row norm of 1.

        The dot product of two such rows is the Spearman correlation of the resample; a constant column gives zeros.
        """
        np.cumsum(counts[self._order], axis=1, out=self._running[:, 1:])
        running = self._running.ravel()
        # Twice the rank minus one is (rows below) + (rows below or equal); its weighted mean is the total count.
        centred = running[self._below]
        centred += running[self._through]
        centred -= counts.sum()
        centred *= np.sqrt(counts)
        norm = np.sqrt(np.einsum("ts,ts->t", centred, centred))
        centred /= np.where(norm > 0, norm, 1.0)[:, None]
        return centred


def query_blocks(s: int, t: int) -> Iterator[slice]:
    """Cut the queries into slices of at most BLOCK // s."""
    step = max(1, BLOCK // s)
    return (slice(start, min(start + step, t)) for start in range(0, t, step))


def resampled_spearman(
    x: NDArray[np.floating], y: NDArray[np.floating], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return (b, t): Spearman's correlation of the columns of `x` and `y`, both (s, t), in every resample (b, s).

    Ties get average ranks. A column that is constant in a resample orders nothing: its correlation is 0.
    """
    s, t = x.shape
    found = np.empty((len(counts), t))
    weights = counts.astype(np.float64)
    for block in query_blocks(s, t):
        ranks_x, ranks_y = MidRanks(x[:, block]), MidRanks(y[:, block])
        for row, weight in zip(found, weights, strict=True):
            row[block] = np.einsum("ts,ts->t", ranks_x.unit(weight), ranks_y.unit(weight))
    return np.clip(found, -1, 1)


def resampled_pairs(outputs: NDArray[np.floating], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (b, t): the mean Spearman correlation over all pairs of the r `outputs` (r, s, t) in every resample.

    With unit rank vectors u_a the mean over pairs is (|sum u_a|^2 - sum |u_a|^2) / (r (r - 1)).
    """
    r, s, t = outputs.shape
    found = np.empty((len(counts), t))
    weights = counts.astype(np.float64)
    for block in query_blocks(s, t):
        ranks = [MidRanks(one[:, block]) for one in outputs]
        for row, weight in zip(found, weights, strict=True):
            units = [one.unit(weight) for one in ranks]
            total = np.sum(units, axis=0)
            own = sum(np.einsum("ts,ts->t", unit, unit) for unit in units)
            row[block] = (np.einsum("ts,ts->t", total, total) - own) / (r * (r - 1))
    return np.clip(found, -1, 1)


def spearman(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Return (t,): Spearman's correlation of the columns of `x` and `y`, both (s, t); 0 where a column is constant.

    >>> import numpy as np
    >>> from estimators.scores import spearman
    >>> x = np.array([[1, 1, 5], [2, 2, 5], [3, 3, 5], [4, 4, 5]])
    >>> y = np.array([[1, 9, 1], [2, 4, 2], [4, 1, 3], [3, 0, 4]])
    >>> spearman(x, y).round(2).tolist()  # two places exchanged; reversed; nothing to rank
    [0.8, -1.0, 0.0]
    """
    x, y = np.asarray(x), np.asarray(y)
    found: NDArray[np.float64] = resampled_spearman(x, y, np.ones((1, len(x)), dtype=np.int64))[0]
    return found
