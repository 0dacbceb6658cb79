"""The training loss as a function of what the module returns: its derivatives, example by example."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vjp

from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.outputs import flatten, unflatten
from workers.data.nested import Nested
from workers.own_training import Answer
from workers.task import GradientTask, Objective

Product = Callable[[Tensor], Tensor]
"""Maps (b, c) to the product of every example's Hessian (c, c) with its row: (b, c)."""


class OutputLosses:
    """Loss and measures of examples whose outputs are given: z (b, c), whatever structure the module returns them in."""

    def __init__(self, task: GradientTask, model: Model, examples: Examples):
        self.task = task
        with torch.no_grad():
            self._like = task.forward(model.module, examples[:1].batch())
            self.size = flatten(self._like).shape[1]
            """c, how many numbers the module returns for an example."""

    def derivatives(self, outputs: Tensor, batch: Nested, weights: Tensor | None) -> tuple[Tensor, Product]:
        """Return the gradients of the examples' weighted losses in their outputs (b, c), and the product with the Hessians."""

        def total(z: Tensor) -> Tensor:
            losses = self.task.criterion(unflatten(z, self._like), batch)
            return (losses if weights is None else losses * weights).sum()

        gradient, pull_back = vjp(grad(total), outputs)[:2]
        return gradient, lambda rows: pull_back(rows)[0]

    def measured(self, objective: Objective, outputs: Tensor, batch: Nested) -> Tensor:
        """Return a measure of examples with these outputs, (b,)."""
        return objective(Answer(unflatten(outputs, self._like)), batch)

    def slopes(self, objective: Objective, outputs: Tensor, batch: Nested) -> Tensor:
        """Return the gradient of every example's measure in its outputs, (b, c)."""
        found: Tensor = grad(lambda z: self.measured(objective, z, batch).sum())(outputs)
        return found


def hessians(product: Product, like: Tensor) -> Tensor:
    """Return the Hessian of every example's loss in its outputs, (b, c, c), column by column; `like` is (b, c)."""
    units = torch.eye(like.shape[1], dtype=like.dtype, device=like.device)
    return torch.stack([product(unit.expand_as(like).contiguous()) for unit in units], dim=2)
