"""Inner products of training gradients with queries' gradients that a Kronecker-factored curvature has been divided out of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.curvature.kronecker import KroneckerFactored
from estimators.gradients.factors import Factor, contracted
from estimators.gradients.functional_model import Examples
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
        turned = _Turned(self, train, quarter)
        held = self.curvature.p * self.curvature.dtype.itemsize
        size = min(rows_within(quarter, 2 * held), self.of_measure.rows(queries, quarter))
        for where in slices(len(queries), size):
            matrices = self._divided(self.of_measure.factors(queries[where]))
            result = torch.empty(len(train), len(matrices[0]), dtype=self.curvature.dtype)
            for rows, factors in turned.batches():
                parts = zip(factors, matrices, strict=True)
                result[rows] = torch.stack([contracted(*pair) for pair in parts]).sum(0)
            yield where, result

    def _divided(self, factors: Sequence[Factor]) -> list[Tensor]:
        """Return the queries' gradients in the basis, divided by the damped eigenvalues, (t, out, in) a block."""
        return [
            basis.turned(factor).formed() / (basis.eigenvalues + damping)
            for factor, basis, damping in zip(factors, self.curvature.bases, self.dampings, strict=True)
        ]


class _Turned:
    """The training gradients in the basis: kept after the first time where they fit, else found again."""

    def __init__(self, solved: Preconditioned, train: Examples, budget: int):
        self._solved, self._train = solved, train
        self._rows = solved.of_losses.rows(train, budget)
        held = sum(factor.held for factor in solved.of_losses.factors(train[:1]))
        self._keep = held * len(train) * solved.curvature.dtype.itemsize <= budget
        self._kept: list[tuple[slice, list[Factor]]] = []

    def batches(self) -> Iterator[tuple[slice, list[Factor]]]:
        """Yield (which examples, their factors in the basis)."""
        if self._kept:
            yield from self._kept
            return
        for where, factors in self._solved.of_losses.batches(self._train, self._rows):
            bases = self._solved.curvature.bases
            turned = [basis.turned(factor) for factor, basis in zip(factors, bases, strict=True)]
            if self._keep:
                self._kept.append((where, turned))
            yield where, turned
