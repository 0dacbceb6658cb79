"""Inner products of queries' gradients with what the optimizer makes of examples' gradients, at the checkpoints of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from estimators.gradient_based.trajectory import TrajectoryEffects, TrajectoryEstimator
from estimators.reference_estimator import Block, Material
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from estimators.gradients.adam import Moments
    from estimators.gradients.functional_model import Model
    from estimators.gradients.optimizer_moments import MomentsFrom
    from workers.recipe import Recipe
    from workers.task import GradientTask


def stepping_recipe(name: str, task: GradientTask) -> Recipe:
    """Return the recipe, whose optimizer an estimator of that name looks at. Raises ConfigError where there is none."""
    if task.recipe is None:
        raise ConfigError(
            f"{name}: direction is that of the optimizer's steps, and the task has no `recipe` that tells it"
        )
    return task.recipe


class OptimizerProducts(TrajectoryEffects):
    """What steps of rate 1 do that are Adam's: preconditioned gradients, or whole steps. Those of sgd are gradients."""

    def __init__(
        self,
        options: TrajectoryEstimator,
        material: Material,
        direction: Literal["preconditioned", "step"],
        moments: MomentsFrom,
    ):
        super().__init__(options, material)
        self._recipe = stepping_recipe(options.name, material.task)
        self._direction, self._from, self._budget = direction, moments, options.budget

    def details(self) -> Mapping[str, Any]:
        """Return the epochs of the checkpoints used, and which running means were taken."""
        taken = {} if self._recipe.optimizer == "sgd" else {"moments": self._from}
        return {**super().details(), **taken}

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield - <grad f_q, Gamma_i> at one checkpoint, with Gamma_i what the optimizer makes of grad loss_i."""
        from estimators.gradient_based.product_effects import descents
        from estimators.gradients.optimizer_moments import moments_at

        if self._recipe.optimizer == "sgd":
            yield from descents(self, model, self._budget)
            return
        task, train = self.material.task, self.material.train
        moments = moments_at(model, checkpoint, task.losses, train, self._recipe, self._from, self._budget // 4)
        made = self._preconditioned if self._direction == "preconditioned" else self._steps
        yield from made(model, checkpoint, moments)

    def _preconditioned(self, model: Model, checkpoint: Checkpoint, moments: Moments) -> Iterator[Block]:
        """Yield - <P grad f_q, grad loss_i>: the query's gradient is formed, the examples' stay in factors."""
        import torch

        from estimators.gradients.example_factors import ExampleFactors
        from estimators.gradients.layers import Layers
        from estimators.gradients.optimizer_moments import squared_divisors
        from estimators.gradients.per_example import rows_within, slices

        train, queries, quarter = self.material.train, self.material.queries, self._budget // 4
        of_losses, of_measure = Layers.of(model, [(self.material.task.losses, train), (self.measure(model), queries)])
        square = squared_divisors(moments.second, self._recipe)
        # 0 where the second moment is: nothing moves there.
        tree = model.unflatten(torch.where(square > 0, torch.where(square > 0, square, 1.0) ** -0.5, 0.0).unsqueeze(0))
        multipliers = [block.gathered(tree) for block in of_losses.blocks]
        examples = ExampleFactors(of_losses, train, quarter)
        size = min(rows_within(quarter, 2 * model.p * model.dtype.itemsize), of_measure.rows(queries, quarter))
        for where in slices(len(queries), size):
            asked = of_measure.factors(queries[where])
            yield (
                where,
                -examples.contracted([one.formed() * by for one, by in zip(asked, multipliers, strict=True)]),
            )

    def _steps(self, model: Model, checkpoint: Checkpoint, moments: Moments) -> Iterator[Block]:
        """Yield - <grad f_q, Gamma_i>, all gradients formed: a step is no linear function of the example's."""
        import torch

        from estimators.gradients.adam import adam_directions
        from estimators.gradients.per_example import blocks

        train, queries, part = self.material.train, self.material.queries, self._budget // 4
        task = self.material.task
        for where, asked in blocks(model, self.measure(model), queries, part):
            found = asked.new_empty(len(train), len(asked))
            for at, rows in blocks(model, task.losses, train, part):
                torch.mm(adam_directions(rows, moments, self._recipe, checkpoint.step), asked.T, out=found[at])
            yield where, -found
