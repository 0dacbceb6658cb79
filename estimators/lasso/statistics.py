"""Sufficient statistics of all regressions at once, accumulated block by block; the masks are never a dense float matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from estimators.lasso.gram import add_gram

ROWS = 1024
"""Rows of one float32 product; sums over more rows are float64."""

Floats = NDArray[np.float64]
Packed = NDArray[np.uint8]


@dataclass
class Statistics:
    """Counts and products of some runs. Add the statistics of disjoint runs with `merge`.

    An output may be NaN: its run does not exist for that query. Such runs are kept as packed rows, and what they added to
    the shared Gram matrix is taken out again for that query alone.
    """

    gram: NDArray[np.int32]
    """(n, n) exact: in how many runs both examples were."""
    shift: Floats
    """(t,) taken off the outputs before anything else, so that sums do not cancel."""
    cross: Floats
    """(t, n) sums over the runs of mask times shifted output."""
    sums: Floats
    """(t,) sums of the shifted outputs."""
    squares: Floats
    """(t,) sums of their squares."""
    rows: int = 0
    """Runs seen."""
    missing: dict[int, list[Packed]] = field(default_factory=dict)
    """Query -> masks (k, ceil(n/8)), packed, of the runs in which its output is NaN."""

    @classmethod
    def empty(cls, n: int, shift: Floats, gram: NDArray[np.int32] | None = None) -> Statistics:
        """Return the statistics of no run, for n examples and the queries of `shift` (t,).

        A `gram` that is given is that of the runs to come, which are then accumulated without it.
        """
        t = len(shift)
        gram = np.zeros((n, n), np.int32) if gram is None else gram
        return cls(gram, shift, np.zeros((t, n)), np.zeros(t), np.zeros(t))

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.gram)

    @property
    def t(self) -> int:
        """Number of queries."""
        return len(self.shift)

    def accumulate(
        self,
        masks: NDArray[np.bool_],
        outputs: NDArray[np.floating[Any]],
        dtype: DTypeLike = np.float32,
        device: str = "cpu",
        gram: bool = True,
    ) -> None:
        """Add a block of runs: masks (b, n) bool, outputs (b, t), products in `dtype`, sums of blocks in float64.

        Without `gram` the Gram matrix has these runs already: it is the same for all queries, and a block of them may share it.
        """
        self.rows += len(masks)
        if gram:
            add_gram(self.gram, masks, device=device)
        for start in range(0, len(masks), ROWS):
            x, y = masks[start : start + ROWS], outputs[start : start + ROWS] - self.shift
            absent = np.isnan(y)
            if absent.any():
                y = np.where(absent, 0.0, y)
                for query in np.flatnonzero(absent.any(0)):
                    self.missing.setdefault(int(query), []).append(np.packbits(x[absent[:, query]], axis=1))
            self.sums += y.sum(0)
            self.squares += np.square(y).sum(0)
            self.cross += y.astype(dtype).T @ x.astype(dtype)

    @staticmethod
    def merge(parts: Sequence[Statistics]) -> Statistics:
        """Return the statistics of all the parts' runs together. Raises ValueError when their shifts differ."""
        total = Statistics.empty(parts[0].n, parts[0].shift)
        for part in parts:
            if not np.array_equal(part.shift, total.shift):
                raise ValueError("statistics with different shifts cannot be merged: pass the same shift to all")
            total.gram += part.gram
            total.cross += part.cross
            total.sums += part.sums
            total.squares += part.squares
            total.rows += part.rows
            for query, rows in part.missing.items():
                total.missing.setdefault(query, []).extend(rows)
        return total

    def take(self, queries: NDArray[np.int64]) -> Statistics:
        """Return the statistics of some queries only; the Gram matrix is shared, not copied."""
        position = {int(q): k for k, q in enumerate(queries)}
        missing = {position[q]: rows for q, rows in self.missing.items() if q in position}
        picked = self.shift[queries], self.cross[queries], self.sums[queries], self.squares[queries]
        return Statistics(self.gram, *picked, self.rows, missing)

    def observed(self) -> NDArray[np.int64]:
        """Return how many runs each query has an output for, (t,)."""
        counts = np.full(self.t, self.rows)
        for query, rows in self.missing.items():
            counts[query] -= sum(map(len, rows))
        return counts

    def missing_rows(self, query: int) -> NDArray[np.bool_]:
        """Return the masks of the runs that have no output for a query, (k, n) bool."""
        packed = (
            np.concatenate(self.missing[query]) if query in self.missing else np.empty((0, (self.n + 7) // 8), np.uint8)
        )
        return np.unpackbits(packed, axis=1, count=self.n).astype(np.bool_)

    def quadratics(self, dtype: DTypeLike, standardize: bool = False) -> Iterator[Quadratic]:
        """Yield the centred problems: one for all queries without NaN, then one for every pattern of missing runs."""
        patterns: dict[bytes, list[int]] = {}
        for query in range(self.t):
            key = np.concatenate(self.missing[query]).tobytes() if query in self.missing else b""
            patterns.setdefault(key, []).append(query)
        for queries in patterns.values():
            yield self._quadratic(np.array(queries), dtype, standardize)

    def _quadratic(self, queries: NDArray[np.int64], dtype: DTypeLike, standardize: bool) -> Quadratic:
        absent, gram = self.missing_rows(int(queries[0])), self.gram
        rows = self.rows - len(absent)
        if len(absent):
            gram = gram.copy()
            gram -= (absent.T.astype(np.float32) @ absent.astype(np.float32)).astype(np.int32)
        counts = np.diagonal(gram).astype(np.float64)
        variances = (counts - counts * counts / rows) / rows
        varies = variances > 0
        scales = (
            np.divide(1, np.sqrt(variances), out=np.zeros(self.n), where=varies) if standardize else np.ones(self.n)
        )
        means = counts / rows
        cross = (self.cross[queries] - means * self.sums[queries, None]) / rows
        cross[:, ~varies] = 0  # a constant column is the intercept's
        power = np.maximum(self.squares[queries] - self.sums[queries] ** 2 / rows, 0) / rows
        output_means = self.shift[queries] + self.sums[queries] / rows
        silent = power <= (1e-9 * np.abs(output_means)) ** 2  # a constant output, up to rounding
        power[silent], cross[silent] = 0, 0
        centred = _centred(gram, means, rows, scales, dtype)
        return Quadratic(queries, rows, centred, cross * scales, power, means, output_means, scales)


@dataclass(frozen=True)
class Quadratic:
    """The centred least-squares problems of queries that have the same runs, per run: 1/2 w'Gw - c'w + power/2."""

    queries: NDArray[np.int64]
    """(k,) which queries of the statistics these are."""
    rows: int
    """Runs they have."""
    gram: NDArray[np.floating[Any]]
    """(n, n) covariance of the masks (correlation, when standardized)."""
    cross: Floats
    """(k, n) covariance of mask and output; 0 for constant columns and constant outputs."""
    power: Floats
    """(k,) variance of the outputs."""
    mask_means: Floats
    """(n,) fraction of the runs each example was in."""
    output_means: Floats
    """(k,)"""
    scales: Floats
    """(n,) w = scales * solution: ones, or when standardized one over the columns' deviations (0 for constant ones)."""

    def largest_penalty(self) -> Floats:
        """Return every query's lambda_max, (k,): the smallest lambda at which all its coefficients are zero."""
        largest: Floats = np.abs(self.cross).max(axis=1, initial=0)
        return largest


def _centred(
    gram: NDArray[np.int32], means: Floats, rows: int, scales: Floats, dtype: DTypeLike
) -> NDArray[np.floating[Any]]:
    """Return (gram - rows * means means') / rows, scaled, in `dtype`, a band of rows at a time in float64."""
    out = np.empty(gram.shape, dtype)
    for start in range(0, len(gram), 256):
        band = slice(start, start + 256)
        out[band] = (gram[band] / rows - means[band, None] * means) * scales[band, None] * scales
    return out
