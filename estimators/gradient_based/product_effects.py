"""What estimators share whose effects are inner products of gradients, changed first or as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from estimators.reference_estimator import Block, Material, ModelEffects
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from estimators.gradients.functional_model import Model
    from estimators.gradients.gradient_products import Change


def descents(effects: ModelEffects, model: Model, budget: int, change: Change | None = None) -> Iterator[Block]:
    """Yield - <c(grad f_q), c(grad loss_i)> at one model, within `budget` bytes; c is `change`, or the identity."""
    from estimators.gradients.gradient_products import gradient_products

    material = effects.material
    losses, measured = (material.task.losses, material.train), (effects.measure(model), material.queries)
    for where, found in gradient_products(model, losses, measured, budget, change):
        yield where, -found


class ProductEffects(ModelEffects):
    """The inner products at the last checkpoint of each model."""

    def __init__(self, material: Material, budget: int, change: Change | None = None):
        super().__init__(material)
        self._budget, self._change = budget, change

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield what a step of rate 1 against each loss does."""
        yield from descents(self, model, self._budget, self._change)
