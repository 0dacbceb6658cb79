"""What a model makes of its inputs, and what a function says of its outputs: forward passes without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from estimators.gradients.functional_model import Examples, Model
from workers.measures import Measure
from workers.task import DifferentiableTask

BATCH = 4096
"""Examples in one pass."""


def representations(task: DifferentiableTask, model: Model, inputs: Tensor) -> Tensor:
    """Return what enters the model's last linear layer, (b, d), in the model's precision."""
    with torch.no_grad():
        return torch.cat([task.representation(model.module, part) for part in torch.split(inputs, BATCH)])


def values_of(model: Model, function: Measure, examples: Examples) -> Tensor:
    """Return function(outputs, targets) of every example, (b,) float64, unweighted."""
    parts = zip(torch.split(examples.inputs, BATCH), torch.split(examples.targets, BATCH), strict=True)
    with torch.no_grad():
        return torch.cat([function(model(model.parameters, x), y) for x, y in parts]).double()
