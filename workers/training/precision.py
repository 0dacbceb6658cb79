"""The types of a training: of its parameters, and of its matrix products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from workers.data.nested import Nested
from workers.recipe import Recipe

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}
"""The dtype of parameters, optimizer state, losses and measured outputs, by the recipe's precision."""


def normalize_in_full(recipe: Recipe, module: nn.Module) -> None:
    """Under `bf16`, have batch normalizations take float32, as their statistics are; torch.func cannot mix the two types."""
    if recipe.precision == "bf16":
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))


def forward(recipe: Recipe, device: torch.device | str, call: Callable[[Nested], Nested], inputs: Nested) -> Nested:
    """Return call(inputs) as a step of the training computes it: under `bf16`, with products in bfloat16, given in float32.

    Nothing that was cast is kept: models that are trained together share no weights.
    """
    if recipe.precision != "bf16":
        return call(inputs)
    with torch.autocast(torch.device(device).type, torch.bfloat16, cache_enabled=False):
        return tree_map_only(Tensor, _full, call(inputs))


def _full(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
