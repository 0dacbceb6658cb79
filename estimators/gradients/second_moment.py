"""What an optimizer divides gradients by: the root of their second moment, coordinate by coordinate."""

from __future__ import annotations

import torch
from torch import Tensor

from estimators.gradients.adam import expected_moments
from estimators.gradients.functional_model import Examples, Model
from workers.recipe import Recipe
from workers.task import Objective

EPS = 1e-8
"""Added to the root where no recipe says what is."""
OF_BATCHES = "adam's, expected of batches at the checkpoint"
OF_EXAMPLES = "the mean square of the examples' gradients: the optimizer has none"


def corrections(
    model: Model, objective: Objective, examples: Examples, recipe: Recipe | None, budget: int
) -> tuple[Tensor, str]:
    """Return 1 / (sqrt(V) + eps) (p,), 0 where V is, and in words what V is.

    For adam and adamw V is what its running mean tends to at the checkpoint (`expected_moments`), with the recipe's eps where it
    has it; for other recipes, and where there is none, the mean square of the examples' gradients.
    """
    adam = recipe is not None and recipe.optimizer != "sgd"
    size = recipe.batch_size * recipe.accumulate if recipe is not None and adam else 1
    moment = expected_moments(model, objective, examples, size, budget).second
    eps = recipe.eps if recipe is not None and adam else EPS
    inside = recipe is not None and adam and recipe.eps_in == "root"
    root = (moment + eps).sqrt() if inside else moment.sqrt() + eps
    return torch.where(moment > 0, 1 / root, 0.0), OF_BATCHES if adam else OF_EXAMPLES
