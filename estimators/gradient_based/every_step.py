"""Inner products of gradients at every step of a training, with the examples of that step alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from estimators.evidence import Reference
from estimators.gradient_based.walked import replay_of, trained_by_us
from estimators.reference_estimator import Block, Material, ModelEffects
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.gradient_based.trajectory import TrajectoryEstimator
    from estimators.gradients.functional_model import Model
    from workers.task import GradientTask
    from workers.training.course import Feed, Moment


def check_steps(options: TrajectoryEstimator, task: GradientTask) -> None:
    """Raise ConfigError for a training that cannot be replayed or whose steps have no weight, and for options of checkpoints."""
    recipe = trained_by_us(options, task).recipe
    if options.epochs is not None:
        raise ConfigError(
            f"{options.name}: epochs names checkpoints, and steps: all looks at every step; expected one of them"
        )
    if recipe.clip_norm is not None:
        raise ConfigError(
            f"{options.name}: steps: all needs steps whose gradients are not clipped, the recipe has clip_norm "
            f"{recipe.clip_norm:g}: use steps: checkpoints, or the estimator unrolled"
        )


class EveryStep(ModelEffects):
    """What every step's examples bring, by that step's rate; the training is replayed once."""

    def __init__(self, options: TrajectoryEstimator, material: Material):
        super().__init__(material)
        self._options, self._steps = options, 0

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Not asked for: a training is looked at, no checkpoint by itself."""
        raise NotImplementedError

    def of_reference(self, reference: Reference) -> Iterator[Block]:
        """Yield the sum over the steps of - rate / batch size * <grad f_q, grad loss_i>."""
        import torch

        task = trained_by_us(self._options, self.material.task)
        replay = replay_of(self._options, self.material, reference, 0.0)
        gain = 1 / (1 - task.recipe.momentum) if task.recipe.optimizer == "sgd" else 1.0
        total = torch.zeros(len(self.material.train), len(self.material.queries), dtype=torch.float64)
        self._steps = replay.steps
        for step in range(replay.steps):
            if step == 0:
                replay.begin(0)
            moment = replay.course.moment()
            rate = gain * replay.course.rates[step]
            for feed in replay.advance():
                self._add(total, moment, feed, rate * feed.portion.share / len(feed.portion.examples))
        yield slice(0, total.shape[1]), total

    def _add(self, total: Tensor, moment: Moment, feed: Feed, factor: float) -> None:
        """Add what one batch brings to its examples (n, t)."""
        from estimators.gradients.functional_model import Examples
        from estimators.gradients.gradient_products import gradient_products

        material = self.material
        model = self.model(Checkpoint(0, moment.step, 0.0, moment.state))
        weights = None if feed.portion.weights is None else feed.portion.weights.to(material.precision)
        batch = Examples(material.train.readable, feed.portion.examples, weights)
        losses, measured = (material.task.losses, batch), (self.measure(model), material.queries)
        for where, found in gradient_products(model, losses, measured, self._options.budget):
            # By index_add_, for an example that stands in at several places.
            total[:, where] = total[:, where].index_add(0, feed.portion.examples, -factor * found.double())

    def details(self) -> Mapping[str, Any]:
        """Return the number of steps that were gone through."""
        return {"steps": self._steps}
