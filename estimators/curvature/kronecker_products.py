"""Inner products of training gradients with queries' gradients that a Kronecker-factored curvature has been divided out of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.curvature.kronecker import KroneckerFactored
from estimators.gradients.factors import Factor, contracted
from estimators.gradients.functional_model import Examples
from estimators.gradients.kept import Kept
from estimators.gradients.layers import Layers
from estimators.gradients.per_example import rows_within, slices


@dataclass(frozen=True)
class Preconditioned:
    """<grad loss_i, (F + damping I)^-1 grad f_q> for all examples and queries, in the eigenbasis of F.

    Both gradients are turned into the basis, where F is diagonal: the query's is divided there, and nothing is turned back.
    """

    curvature: KroneckerFactored
    dampings: Sequence[float]
    """Added to the eigenvalues, block by block."""
    of_losses: Layers
    of_measure: Layers
    budget: int
    """Bytes that may be held at once, beside the result."""

    def products(self, train: Examples, queries: Examples) -> Iterator[tuple[slice, Tensor]]:
        """Yield (which queries, the products (n, b)), as many queries at a time as fit."""
        quarter = self.budget // 4
        itemsize = self.curvature.dtype.itemsize
        rows = self.of_losses.rows(train, quarter)
        held = sum(factor.held for factor in self.of_losses.factors(train[:1])) * itemsize
        kept = Kept(lambda: self._turned(train, rows), held * len(train), quarter)
        size = min(rows_within(quarter, 2 * self.curvature.p * itemsize), self.of_measure.rows(queries, quarter))
        for where in slices(len(queries), size):
            matrices = self._divided(self.of_measure.factors(queries[where]))
            shape = (len(train), where.stop - where.start)
            result = torch.zeros(shape, dtype=self.curvature.dtype, device=self.curvature.device)
            for at, factors in kept:
                for factor, matrix in zip(factors, matrices, strict=True):
                    result[at] += contracted(factor, matrix)
            yield where, result

    def _turned(self, train: Examples, rows: int) -> Iterator[tuple[slice, list[Factor]]]:
        """Yield (which examples, their gradients in the basis)."""
        for where, factors in self.of_losses.batches(train, rows):
            yield where, [basis.turned(one) for one, basis in zip(factors, self.curvature.bases, strict=True)]

    def _divided(self, factors: Sequence[Factor]) -> list[Tensor]:
        """Return the queries' gradients in the basis, divided by the damped eigenvalues, (t, out, in) a block."""
        return [
            basis.turned(factor).formed() / (basis.eigenvalues + damping)
            for factor, basis, damping in zip(factors, self.curvature.bases, self.dampings, strict=True)
        ]
