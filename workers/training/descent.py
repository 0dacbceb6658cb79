"""What happens to one model's parameters once their gradients are there: clipped, stepped, averaged."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

import torch
from torch import Tensor, nn

from workers.recipe import Recipe
from workers.training.optimizers import RootAdam, make_optimizer

_MOMENTS: dict[type, dict[str, str]] = {
    torch.optim.SGD: {"first": "momentum_buffer"},
    torch.optim.Adam: {"first": "exp_avg", "second": "exp_avg_sq"},
    torch.optim.AdamW: {"first": "exp_avg", "second": "exp_avg_sq"},
    RootAdam: {"first": "first", "second": "second"},
}
"""How each optimizer names its moments."""


class Descent:
    """Takes the optimizer steps of one module."""

    def __init__(self, recipe: Recipe, module: nn.Module):
        """Raises ConfigError for a pattern of `no_decay` that matches no parameter."""
        self.recipe = recipe
        self.optimizer = make_optimizer(recipe, module)
        self._names = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.parameters: list[Tensor] = list(self._names.values())
        self._moments = _MOMENTS[type(self.optimizer)]
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

    def state(self) -> dict[str, Tensor]:
        """Return what is held beside the parameters, by the names of `Checkpoint.optimizer`; no copies.

        A parameter that no gradient has reached has no moments.
        """
        found: dict[str, Tensor] = {}
        for name, value in self._names.items():
            moments = self.optimizer.state.get(value, {})
            for ours, theirs in self._moments.items():
                if moments.get(theirs) is not None:
                    found[f"{ours}/{name}"] = moments[theirs]
        return found | {
            f"average/{name}": one for name, one in zip(self._names, self.average, strict=bool(self.average))
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor], taken: int) -> None:
        """Hold what `state()` returned after so many steps."""
        self.taken = taken
        self.optimizer.state.clear()
        self.optimizer.zero_grad(set_to_none=True)
        for (name, value), average in zip_longest(self._names.items(), self.average):
            held = {
                theirs: state[f"{ours}/{name}"].to(value.device, copy=True)
                for ours, theirs in self._moments.items()
                if f"{ours}/{name}" in state
            }
            if held:
                self.optimizer.state[value] = held
                if isinstance(self.optimizer, torch.optim.Adam):
                    held["step"] = torch.tensor(float(taken), device=value.device)
            if average is not None:
                average.copy_(state[f"average/{name}"])
        if isinstance(self.optimizer, RootAdam):
            self.optimizer.taken = taken

    @torch.no_grad()
    def finish(self) -> None:
        """Put the average, where the recipe asks for one, in the parameters' place. Buffers stay what they are."""
        if self.average:
            torch._foreach_copy_(self.parameters, self.average)
