"""A model's outputs as linear functions of parameters around a point: of its last layer alone, or of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.last_layer import LastLayer
from estimators.gradients.outputs import flatten
from estimators.gradients.per_example import gradients
from workers.data.nested import Nested
from workers.task import GradientTask


class Linearized(Protocol):
    """Outputs z (b, c) and their Jacobians (b, c, p) at a point."""

    @property
    def p(self) -> int:
        """Number of parameters."""

    @property
    def size(self) -> int:
        """c, the number of outputs."""

    def outputs(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """Return z (b, c) and the Jacobians (b, c, p)."""


@dataclass(frozen=True)
class LinearizedLastLayer:
    """The last layer with weights V (d, c), p = d c in that order: no approximation."""

    layer: LastLayer
    weights: Tensor
    budget: int

    @property
    def p(self) -> int:
        """Number of parameters, d c."""
        return self.weights.numel()

    @property
    def size(self) -> int:
        """c, the number of outputs."""
        return self.weights.shape[1]

    def outputs(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """Return z (b, c) = h V and the Jacobians (b, c, p) = h x I."""
        inputs, size = self.layer.inputs(examples, self.budget), self.size
        units = torch.eye(size, dtype=inputs.dtype, device=inputs.device)
        jacobians = inputs[:, None, :, None] * units[None, :, None, :]
        return inputs @ self.weights, jacobians.reshape(len(inputs), size, self.p)


@dataclass(frozen=True)
class LinearizedModel:
    """All parameters that are differentiated, around those of a checkpoint."""

    task: GradientTask
    model: Model
    size: int
    """c, the number of outputs."""
    budget: int

    @property
    def p(self) -> int:
        """Number of parameters."""
        return self.model.p

    def outputs(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """Return z (b, c) and the Jacobians (b, c, p), an output after the other."""
        batch, count = examples.batch(), len(examples)
        with torch.no_grad():
            found = flatten(self.task.forward(self.model.module, batch))
        rows = torch.eye(self.size, dtype=found.dtype, device=found.device)
        parts = [
            gradients(self.model, self._inner, Examples.of((batch, row.expand(count, -1)), count), self.budget)
            for row in rows
        ]
        return found, torch.stack(parts, dim=1)

    def _inner(self, module: nn.Module, pair: tuple[Nested, Tensor]) -> Tensor:
        """Return <outputs, row> of every example, (b,)."""
        batch, rows = pair
        return (flatten(self.task.forward(module, batch)) * rows).sum(1)
