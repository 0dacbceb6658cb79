"""Faster forms of the same module: what training alone does to convolutional networks, where that was measured to be faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pool_before_relu(module: nn.Module) -> nn.Module:
    """Exchange every ReLU directly followed by a MaxPool2d inside an nn.Sequential, in place; return the module.

    They commute, values and gradients alike (where the largest value is not positive both orders give zero), and the ReLU then
    works on what is left after pooling. Neither has parameters, so names and initial weights stay.
    """
    for part in module.modules():
        if type(part) is not nn.Sequential:
            continue
        for place in range(len(part) - 1):
            relu, pool = part[place], part[place + 1]
            if type(relu) is nn.ReLU and type(pool) is nn.MaxPool2d and not _is_watched(relu, pool):
                part[place], part[place + 1] = pool, relu
    return module


def _is_watched(*modules: nn.Module) -> bool:
    """Whether a hook would notice the exchange, or the pooling returns more than values."""
    return any(
        module._forward_hooks or module._forward_pre_hooks or getattr(module, "return_indices", False)
        for module in modules
    )


def to_channels_last(module: nn.Module, inputs: Tensor) -> Tensor:
    """Lay the module's weights out with channels last, in place, and return images (n, c, h, w) laid out so too."""
    module.to(memory_format=torch.channels_last)
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs
