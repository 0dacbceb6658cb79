"""What a model makes of examples, and what a function says of them: forward passes without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.per_example import slices
from workers.task import GradientTask, Objective

BATCH = 4096
"""Examples in one pass."""


def representations(task: GradientTask, model: Model, examples: Examples) -> Tensor:
    """Return what enters the model's last linear layer, or what the task takes for it, (b, d), in the model's precision."""
    with torch.no_grad():
        parts = [task.features(model.module, examples[where].batch()) for where in slices(len(examples), BATCH)]
    return torch.cat(parts)


def values_of(model: Model, objective: Objective, examples: Examples) -> Tensor:
    """Return objective(module, batch) of every example, (b,) float64, unweighted."""
    with torch.no_grad():
        parts = [
            model.value(model.parameters, objective, examples[where].batch()) for where in slices(len(examples), BATCH)
        ]
    return torch.cat(parts).double()
