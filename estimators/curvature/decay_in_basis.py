"""What weight decay adds to the eigenvalues of a curvature that is block by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.curvature.kronecker import KroneckerFactored
from estimators.gradients.functional_model import Model
from estimators.gradients.sided_scale import SidedScale
from workers.recipe import Recipe
from workers.training.decay import undecayed


def with_decay(
    curvature: KroneckerFactored, model: Model, recipe: Recipe, scales: Sequence[SidedScale] | None
) -> KroneckerFactored:
    """Return the curvature with the recipe's weight decay, of D H D where there are scales D.

    The decay of sgd and adam is in the gradient, and so multiplied by D^2, too; that of adamw is not. Where all parameters of a
    block decay alike and nothing multiplies it, it adds one number to every eigenvalue; else its mean square along each
    eigenvector, the diagonal of the decay in that basis. Raises ConfigError for a pattern of `no_decay` that matches nothing.
    """
    if not recipe.weight_decay:
        return curvature
    spared = undecayed(recipe, dict(model.module.named_parameters()))
    rates = {
        name: torch.full_like(value, 0.0 if name in spared else recipe.weight_decay).unsqueeze(0)
        for name, value in model.parameters.items()
    }
    found: list[Tensor] = []
    for place, (block, basis) in enumerate(zip(curvature.blocks, curvature.bases, strict=True)):
        decay = block.gathered(rates)
        if scales is not None and recipe.optimizer != "adamw":
            decay = decay * scales[place].formed().square()
        found.append(basis.eigenvalues + basis.squared().into(decay)[0])
    return curvature.with_eigenvalues(found)
