"""What a model makes of examples, and what a function says of them: forward passes without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.outputs import flatten
from estimators.gradients.per_example import slices
from workers.errors import ConfigError, near
from workers.task import GradientTask, Objective

BATCH = 4096
"""Examples in one pass."""


def representations(task: GradientTask, model: Model, examples: Examples) -> Tensor:
    """Return what enters the model's last linear layer, or what the task takes for it, (b, d), in the model's precision."""
    with torch.no_grad():
        parts = [task.features(model.module, examples[where].batch()) for where in slices(len(examples), BATCH)]
    return torch.cat(parts)


def layer_outputs(task: GradientTask, model: Model, layer: str, examples: Examples) -> Tensor:
    """Return what the module of that name returns, flattened, (b, d), in the model's precision.

    Raises ConfigError, with near names, where there is none, and for one that is not called once in a forward pass.
    """
    named = dict(model.module.named_modules())
    if layer not in named or not layer:
        raise ConfigError(f"layer {layer!r} is no part of the module: {near(layer, [name for name in named if name])}")
    parts: list[Tensor] = []
    handle = named[layer].register_forward_hook(lambda _module, _args, outputs: parts.append(flatten(outputs)))
    places = list(slices(len(examples), BATCH))
    try:
        with torch.no_grad():
            for where in places:
                task.forward(model.module, examples[where].batch())
    finally:
        handle.remove()
    if len(parts) != len(places):
        raise ConfigError(
            f"layer {layer!r} is called {len(parts) / len(places):g} times in a forward pass: expected one that is called once"
        )
    return torch.cat(parts)


def values_of(model: Model, objective: Objective, examples: Examples) -> Tensor:
    """Return objective(module, batch) of every example, (b,) float64, unweighted."""
    with torch.no_grad():
        parts = [
            model.value(model.parameters, objective, examples[where].batch()) for where in slices(len(examples), BATCH)
        ]
    return torch.cat(parts).double()
