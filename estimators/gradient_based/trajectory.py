"""What estimators that follow a training through its checkpoints share: which they look at, and the rates of their steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from estimators.evidence import Reference
from estimators.reference_estimator import ReferenceEstimator
from workers.errors import ConfigError
from workers.runs import Checkpoint


class TrajectoryEstimator(ReferenceEstimator):
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

    def last_rates(self, checkpoints: Sequence[Checkpoint]) -> list[float]:
        """Return the learning rate of the last step before each checkpoint. Raises ConfigError where the task told none."""
        untold = [checkpoint.epoch for checkpoint in checkpoints if math.isnan(checkpoint.learning_rate)]
        if untold:
            raise ConfigError(
                f"{self.name} weights a checkpoint by its learning rate, and the task told none for epoch {untold[0]}: "
                "have train(subset, seed, keep) call keep(epoch, step, learning_rate, module)"
            )
        return [checkpoint.learning_rate for checkpoint in checkpoints]
