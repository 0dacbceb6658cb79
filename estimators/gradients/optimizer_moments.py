"""Adam's running means at a checkpoint: as they were kept with it, or as batches at its parameters would make them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from estimators.gradients.adam import Moments, expected_moments
from estimators.gradients.functional_model import Examples, Model
from workers.errors import ConfigError
from workers.recipe import Recipe
from workers.runs import Checkpoint
from workers.task import Objective

MomentsFrom: TypeAlias = Literal["kept", "expected"]
"""Where they come from."""


def moments_at(
    model: Model,
    checkpoint: Checkpoint,
    objective: Objective,
    examples: Examples,
    recipe: Recipe,
    taken_from: MomentsFrom,
    budget: int,
) -> Moments:
    """Return the running means of an adam or adamw at a checkpoint, corrected for their start at 0, each (p,).

    Raises ConfigError for `kept` where the checkpoint has none.
    """
    if taken_from == "expected":
        return expected_moments(model, objective, examples, recipe.batch_size * recipe.accumulate, budget)
    if checkpoint.optimizer is None or checkpoint.step == 0:
        raise ConfigError(
            f"the checkpoint of epoch {checkpoint.epoch} has none of {recipe.optimizer}'s running means: expected "
            "`optimizer_state: true` in its design, or `moments: expected`, which takes those of batches at the checkpoint"
        )
    found = [
        model.flatten({name: _held(checkpoint, f"{place}/{name}", value) for name, value in model.parameters.items()})
        / (1 - beta**checkpoint.step)
        for place, beta in zip(("first", "second"), recipe.betas, strict=True)
    ]
    return Moments(*found)


def squared_divisors(second: Tensor, recipe: Recipe) -> Tensor:
    """Return the squares of what adam divides its steps by, (sqrt(v) + eps)^2 or v + eps; 0 where v is: nothing moves there."""
    found = second + recipe.eps if recipe.eps_in == "root" else (second.sqrt() + recipe.eps).square()
    return torch.where(second > 0, found, 0.0)


def _held(checkpoint: Checkpoint, name: str, like: Tensor) -> Tensor:
    """Return a moment; zeros for a parameter that no gradient has reached."""
    assert checkpoint.optimizer is not None
    held = checkpoint.optimizer.get(name)
    return torch.zeros_like(like) if held is None else held.to(like)
