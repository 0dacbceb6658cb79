"""What happens to one model's parameters once their gradients are there: clipped, stepped, averaged."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.recipe import Recipe
from workers.training.optimizers import make_optimizer


class Descent:
    """Takes the optimizer steps of one module."""

    def __init__(self, recipe: Recipe, module: nn.Module):
        """Raises ConfigError for a pattern of `no_decay` that matches no parameter."""
        self.recipe = recipe
        self.optimizer = make_optimizer(recipe, module)
        self.parameters: list[Tensor] = [value for value in module.parameters() if value.requires_grad]
        self.average = [value.detach().clone() for value in self.parameters] if recipe.ema else []
        self.taken = 0

    def step(self, rate: float) -> None:
        """Take one step at this learning rate, and forget the gradients."""
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            if group["lr"] != rate:
                group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.recipe.ema:
            self._follow(self.recipe.ema)
        self.taken += 1

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """Move the average towards the parameters: it is what they are after the first step, then decays."""
        decay = decay if self.taken else 0.0
        torch._foreach_mul_(self.average, decay)
        torch._foreach_add_(self.average, self.parameters, alpha=1 - decay)

    @torch.no_grad()
    def finish(self) -> None:
        """Put the average, where the recipe asks for one, in the parameters' place. Buffers stay what they are."""
        if self.average:
            torch._foreach_copy_(self.parameters, self.average)
