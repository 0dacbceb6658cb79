"""The direction in which Adam would step on one example's gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.per_example import blocks
from workers.recipe import Recipe
from workers.task import Objective


@dataclass(frozen=True)
class Moments:
    """Adam's running means, corrected for their start at 0, in the order of `Model.flatten`."""

    first: Tensor
    """m (p,)."""
    second: Tensor
    """v (p,)."""


def expected_moments(model: Model, objective: Objective, examples: Examples, batch_size: int, budget: int) -> Moments:
    """Return what the moments tend to when Adam's gradients are those of batches at these very parameters.

    m is then the mean gradient mu of the n examples, and v the mean square of the gradient of a batch of b examples without
    repetition: mu^2 + sigma^2 / b (n - b) / (n - 1), with sigma^2 the variance of the examples' gradients; all by coordinate.
    """
    n = len(examples)
    total, squares = (torch.zeros(model.p, dtype=torch.float64) for _ in range(2))
    for _, rows in blocks(model, objective, examples, budget):
        total += rows.double().sum(0)
        squares += rows.double().square().sum(0)
    mean = total / n
    variance = (squares / n - mean.square()).clamp(min=0)
    size = min(batch_size, n)
    left = (n - size) / (n - 1) if n > 1 else 0.0
    return Moments(mean.to(model.dtype), (mean.square() + variance / size * left).to(model.dtype))


def adam_directions(rows: Tensor, moments: Moments, recipe: Recipe, steps: int) -> Tensor:
    """Return Gamma (b, p) for gradients (b, p): the step that Adam takes after `steps` others, but for its rate and sign.

    Gamma = m' / (sqrt(v') + eps), or m' / sqrt(v' + eps), with m' and v' the corrected means after the gradient has entered them.
    """
    parts = []
    for beta, moment, value in zip(recipe.betas, (moments.first, moments.second), (rows, rows.square()), strict=True):
        kept = 1 - beta**steps
        parts.append((beta * kept * moment + (1 - beta) * value) / (1 - beta ** (steps + 1)))
    first, second = parts
    return first / ((second + recipe.eps).sqrt() if recipe.eps_in == "root" else second.sqrt() + recipe.eps)
