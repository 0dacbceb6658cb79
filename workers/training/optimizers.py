"""PyTorch's optimizers for a recipe, and the one that it lacks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from workers.recipe import Recipe
from workers.training.decay import undecayed


def make_optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimizer of all that is trained: one group of parameters, and one without decay where asked for.

    PyTorch's are fused where that is faster: one call costs as much as SGD on two. Raises ConfigError as `undecayed` does.
    """
    spared = undecayed(recipe, dict(module.named_parameters()))
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    groups: list[dict[str, Any]] = [
        {"params": [value for name, value in trained.items() if name not in spared]},
        {"params": [value for name, value in trained.items() if name in spared], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            recipe.lr,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
            fused=len(trained) > 2,
        )
    if recipe.eps_in == "root":
        return RootAdam(groups, recipe)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, recipe.lr, recipe.betas, recipe.eps, recipe.weight_decay, fused=True)


class RootAdam(torch.optim.Optimizer):
    """Adam, or AdamW, with eps inside the root: theta -= lr * m_hat / sqrt(v_hat + eps).

    m_hat and v_hat are the moments corrected for their start (Kingma and Ba 2015, algorithm 1, which adds eps outside).
    """

    def __init__(self, groups: list[dict[str, Any]], recipe: Recipe):
        super().__init__(groups, {"lr": recipe.lr, "weight_decay": recipe.weight_decay})
        self.recipe, self.taken = recipe, 0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        self.taken += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group["lr"], group["weight_decay"])

    def _update(self, parameter: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        beta1, beta2 = self.recipe.betas
        if self.recipe.optimizer == "adamw":
            parameter.mul_(1 - rate * decay)
        elif decay:
            gradient = gradient.add(parameter, alpha=decay)
        state = self.state[parameter]
        if not state:
            state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["first"].lerp_(gradient, 1 - beta1)
        state["second"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (state["second"] / (1 - beta2**self.taken)).add_(self.recipe.eps).sqrt_()
        parameter.addcdiv_(state["first"], root, value=-rate / (1 - beta1**self.taken))
