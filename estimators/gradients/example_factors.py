"""The gradients of examples in the factors of their layers, gone through again and again: kept in memory where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from estimators.gradients.factors import Factor, contracted
from estimators.gradients.functional_model import Examples
from estimators.gradients.kept import Kept
from estimators.gradients.layers import Layers


class ExampleFactors:
    """The gradients of one objective at one model, example by example, each batch changed by `change` first."""

    def __init__(
        self,
        layers: Layers,
        examples: Examples,
        budget: int,
        change: Callable[[list[Factor]], list[Factor]] | None = None,
    ):
        """`budget` is in bytes: half for the pass of a batch, half for what is kept."""
        self._layers, self._examples, self._change = layers, examples, change
        rows = layers.rows(examples, budget // 2)
        held = sum(factor.held for factor in self._changed(layers.factors(examples[:1])))
        size = held * layers.model.dtype.itemsize * len(examples)
        self._batches = Kept(lambda: self._passed(rows), size, budget // 2)

    def contracted(self, matrices: Sequence[Tensor]) -> Tensor:
        """Return <gradient of example i, q> (n, r), for q by blocks, (r, out, in) each."""
        count = len(matrices[0])
        result = torch.zeros(len(self._examples), count, dtype=matrices[0].dtype, device=matrices[0].device)
        for where, factors in self._batches:
            for factor, matrix in zip(factors, matrices, strict=True):
                result[where] += contracted(factor, matrix)
        return result

    def _passed(self, rows: int) -> Iterator[tuple[slice, list[Factor]]]:
        for where, factors in self._layers.batches(self._examples, rows):
            yield where, self._changed(factors)

    def _changed(self, factors: list[Factor]) -> list[Factor]:
        return factors if self._change is None else self._change(factors)
