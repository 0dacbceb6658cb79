"""SGD, Adam and AdamW on stacked parameters: torch.optim's formulas, with a learning rate and a step count for every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from workers.recipe import Recipe


class StackedOptimizer:
    """Updates stacked parameters (K, ...) in place; some or all of the K models take each step."""

    def __init__(self, recipe: Recipe, parameters: Mapping[str, Tensor]):
        self.recipe, self.parameters = recipe, parameters
        adaptive = recipe.optimizer != "sgd"
        self.first = {n: torch.zeros_like(p) for n, p in parameters.items()} if adaptive or recipe.momentum else {}
        self.second = {n: torch.zeros_like(p) for n, p in parameters.items()} if adaptive else {}

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], where: Tensor | None, rates: Tensor, steps: Sequence[int]) -> None:
        """Take one step of the models at `where` (None: all): gradients (g, ...), rates (g,), steps taken before (g)."""
        for name, gradient in gradients.items():
            state = [self.parameters[name]] + [held[name] for held in (self.first, self.second) if held]
            parts = state if where is None else [value[where] for value in state]
            shape = (-1,) + (1,) * (gradient.ndim - 1)
            if self.recipe.optimizer == "sgd":
                self._sgd(parts, gradient, rates.reshape(shape))
            else:
                self._adam(parts, gradient, rates.reshape(shape), steps)
            if where is not None:
                for value, part in zip(state, parts, strict=True):
                    value[where] = part

    def _sgd(self, parts: list[Tensor], gradient: Tensor, rate: Tensor) -> None:
        if self.recipe.weight_decay:
            gradient = gradient.add(parts[0], alpha=self.recipe.weight_decay)
        if self.recipe.momentum:
            velocity = parts[1].mul_(self.recipe.momentum).add_(gradient)
            gradient = gradient.add(velocity, alpha=self.recipe.momentum) if self.recipe.nesterov else velocity
        parts[0].addcmul_(gradient, rate, value=-1)

    def _adam(self, parts: list[Tensor], gradient: Tensor, rate: Tensor, steps: Sequence[int]) -> None:
        beta1, beta2 = self.recipe.betas
        taken = torch.tensor([step + 1 for step in steps], dtype=torch.float64)
        corrections = ((1 - beta1**taken), (1 - beta2**taken).sqrt())
        correct1, correct2 = (value.to(rate.device, rate.dtype).reshape(rate.shape) for value in corrections)
        parameter, first, second = parts
        if self.recipe.optimizer == "adamw":
            parameter.mul_(1 - rate * self.recipe.weight_decay)
        elif self.recipe.weight_decay:
            gradient = gradient.add(parameter, alpha=self.recipe.weight_decay)
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = (second.sqrt() / correct2).add_(self.recipe.eps)
        parameter.addcmul_(first / denominator, rate / correct1, value=-1)
