"""What estimators that follow a training through its checkpoints share: which they look at, and the rates of their steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from estimators.evidence import Reference
from estimators.gradient_based.product_effects import descents
from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from estimators.gradients.functional_model import Model
    from estimators.gradients.gradient_products import Change
    from workers.task import GradientTask


class CheckpointsEstimator(ReferenceEstimator):
    """An estimator that looks at several checkpoints of each reference model.

    No stretch of training ends at the initial model, so epoch 0 is left out unless named in `epochs`.
    """

    epochs: tuple[int, ...] | None = Field(None, description="checkpoints to use; null takes all kept after epoch 0")

    def checkpoints(self, reference: Reference) -> list[Checkpoint]:
        """Return the checkpoints to use, ascending. Raises ConfigError for one that is not there, and for none."""
        kept = {checkpoint.epoch: checkpoint for checkpoint in reference.checkpoints}
        wanted = sorted(epoch for epoch in kept if epoch > 0) if self.epochs is None else sorted(set(self.epochs))
        missing = [epoch for epoch in wanted if epoch not in kept]
        if missing or not wanted:
            asked = f"checkpoints of epochs {missing}" if missing else "a checkpoint after epoch 0"
            raise ConfigError(
                f"{self.name} needs {asked}, the reference model of seed {reference.seed} has {sorted(kept)}"
            )
        return [kept[epoch] for epoch in wanted]


class TrajectoryEstimator(CheckpointsEstimator):
    """One that adds up what its checkpoints bring, each with a weight."""

    @abstractmethod
    def weights_of(self, checkpoints: Sequence[Checkpoint], task: GradientTask) -> list[float]:
        """Return the weight of every checkpoint. Raises ConfigError where the task did not tell what it needs."""

    def last_rates(self, checkpoints: Sequence[Checkpoint]) -> list[float]:
        """Return the learning rate of the last step before each checkpoint. Raises ConfigError where the task told none."""
        untold = [checkpoint.epoch for checkpoint in checkpoints if math.isnan(checkpoint.learning_rate)]
        if untold:
            raise ConfigError(
                f"{self.name} weights a checkpoint by its learning rate, and the task told none for epoch {untold[0]}: "
                "have train(subset, seed, keep) call keep(epoch, step, learning_rate, module)"
            )
        return [checkpoint.learning_rate for checkpoint in checkpoints]


class TrajectoryEffects(ModelEffects):
    """What the checkpoints of a training bring, each with its weight."""

    def __init__(self, options: TrajectoryEstimator, material: Material):
        super().__init__(material)
        self._trajectory = options
        self._epochs: list[int] = []

    def chosen(self, reference: Reference) -> list[tuple[Checkpoint, float]]:
        """Return the checkpoints that the options name, with their weights."""
        checkpoints = self._trajectory.checkpoints(reference)
        self._epochs = [checkpoint.epoch for checkpoint in checkpoints]
        return list(zip(checkpoints, self._trajectory.weights_of(checkpoints, self.material.task), strict=True))

    def details(self) -> Mapping[str, Any]:
        """Return the epochs of the checkpoints used."""
        return {"epochs": self._epochs}


class TrajectoryProducts(TrajectoryEffects):
    """Inner products of gradients at the checkpoints, changed first by `change`."""

    def __init__(self, options: TrajectoryEstimator, material: Material, change: Change | None = None):
        super().__init__(options, material)
        self._change = change

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield what a step of rate 1 against each loss does at one checkpoint."""
        yield from descents(self, model, self._trajectory.budget, self._change)
