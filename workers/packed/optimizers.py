"""SGD, Adam and AdamW on stacked parameters: torch.optim's formulas, with a learning rate and a step count for every model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from workers.recipe import Recipe
from workers.training.decay import undecayed

_CLIP_EPS = 1e-6
"""Added to the norm that a gradient is divided by, as `torch.nn.utils.clip_grad_norm_` does."""


class StackedOptimizer:
    """Updates stacked parameters (K, ...) in place; some or all of the K models take each step."""

    def __init__(self, recipe: Recipe, parameters: Mapping[str, Tensor], names: Collection[str]):
        """`names` are those of all parameters, frozen ones too. Raises ConfigError as `undecayed` does."""
        self.recipe, self.parameters = recipe, parameters
        spared = undecayed(recipe, names)
        self.decay = {name: 0.0 if name in spared else recipe.weight_decay for name in parameters}
        adaptive = recipe.optimizer != "sgd"
        self.first = {n: torch.zeros_like(p) for n, p in parameters.items()} if adaptive or recipe.momentum else {}
        self.second = {n: torch.zeros_like(p) for n, p in parameters.items()} if adaptive else {}

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], where: Tensor | None, rates: Tensor, steps: Sequence[int]) -> None:
        """Take one step of the models at `where` (None: all): gradients (g, ...), rates (g,), steps taken before (g)."""
        if self.recipe.clip_norm is not None:
            gradients = clipped(gradients, self.recipe.clip_norm)
        for name, gradient in gradients.items():
            state = [self.parameters[name]] + [held[name] for held in (self.first, self.second) if held]
            parts = state if where is None else [value[where] for value in state]
            rate = rates.reshape((-1,) + (1,) * (gradient.ndim - 1))
            if self.recipe.optimizer == "sgd":
                self._sgd(parts, gradient, rate, self.decay[name])
            else:
                self._adam(parts, gradient, rate, self.decay[name], steps)
            if where is not None:
                for value, part in zip(state, parts, strict=True):
                    value[where] = part

    def _sgd(self, parts: list[Tensor], gradient: Tensor, rate: Tensor, decay: float) -> None:
        if decay:
            gradient = gradient.add(parts[0], alpha=decay)
        if self.recipe.momentum:
            velocity = parts[1].mul_(self.recipe.momentum).add_(gradient)
            gradient = gradient.add(velocity, alpha=self.recipe.momentum) if self.recipe.nesterov else velocity
        parts[0].addcmul_(gradient, rate, value=-1)

    def _adam(self, parts: list[Tensor], gradient: Tensor, rate: Tensor, decay: float, steps: Sequence[int]) -> None:
        beta1, beta2 = self.recipe.betas
        taken = torch.tensor([step + 1 for step in steps], dtype=torch.float64)
        corrections = ((1 - beta1**taken), (1 - beta2**taken).sqrt())
        correct1, correct2 = (value.to(rate.device, rate.dtype).reshape(rate.shape) for value in corrections)
        parameter, first, second = parts
        if self.recipe.optimizer == "adamw":
            parameter.mul_(1 - rate * decay)
        elif decay:
            gradient = gradient.add(parameter, alpha=decay)
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        if self.recipe.eps_in == "root":
            denominator = (second / correct2**2).add_(self.recipe.eps).sqrt_()
        else:
            denominator = (second.sqrt() / correct2).add_(self.recipe.eps)
        parameter.addcmul_(first / denominator, rate / correct1, value=-1)


def clipped(gradients: Mapping[str, Tensor], most: float) -> dict[str, Tensor]:
    """Return the gradients (g, ...), each model's times min(1, most / (norm + 1e-6)) for its norm over all parameters."""
    total: Tensor | float = 0.0
    for gradient in gradients.values():
        total = total + _squares(gradient)
    factors = (most / (torch.as_tensor(total).sqrt() + _CLIP_EPS)).clamp(max=1)
    return {name: value * factors.reshape((-1,) + (1,) * (value.ndim - 1)) for name, value in gradients.items()}


def _squares(gradient: Tensor) -> Tensor:
    """Return each model's sum of squares, (g,), with the same last bits in any group."""
    rows = gradient.reshape(len(gradient), -1)
    # A sum to one number is shared out among threads, and then rounds otherwise than a sum beside others.
    rows = rows.expand(2, -1) if len(rows) == 1 else rows
    return rows.square().sum(1)[: len(gradient)]
