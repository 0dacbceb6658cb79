"""TracIn: follow the gradient steps of training through its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field

from estimators.contract import Attribution
from estimators.evidence import Evidence, Reference
from estimators.gradients.functional_model import Examples, Model, precision_of
from estimators.gradients.per_example import blocks, measure_to_differentiate, products
from estimators.reference_estimator import ReferenceEstimator, attribution
from workers.errors import ConfigError
from workers.recipe import Recipe
from workers.runs import Checkpoint


class TracIn(ReferenceEstimator):
    """tau[i, q] = - sum over checkpoints c of w_c <grad f_q(theta_c), grad loss_i(theta_c)>, averaged over models.

    TracInCP (Pruthi et al. 2020): a gradient step on example i moves theta by -lr * grad loss_i, so moves
    the measure f_q by tau. A checkpoint stands for the stretch of training that ends at it:

    - `weights: learning_rate`: w_c is the learning rate of the last step before the checkpoint, as in the paper.
      Unit-free: the number of visits and the batch size are left out. A schedule that ends at 0 gives the last
      checkpoint almost no weight.
    - `weights: segment`: w_c = (1/n) * sum of the learning rates of all steps since the checkpoint used before it (or
      since the start), times 1 / (1 - momentum) for sgd. In a random order each epoch visits i once, in a step of rate
      lr and batch size B with probability B/n, and moves theta by lr/B: the sum is the expected coefficient of grad
      loss_i, so tau is in units of the measure for sgd. The preconditioning of adam and adamw is left out.

    No stretch ends at the initial model, so epoch 0 is left out unless named in `epochs`; it then weighs as much as the
    learning rate of the first step, and is refused with `segment`.
    """

    name: ClassVar[str] = "tracin"

    weights: Literal["learning_rate", "segment"] = Field(
        "learning_rate",
        description="weight of a checkpoint: its learning rate, or the sum over the steps it stands for / n",
    )
    epochs: tuple[int, ...] | None = Field(None, description="checkpoints to use; null takes all kept after epoch 0")

    def attribute(self, evidence: Evidence) -> Attribution:
        """Sum over checkpoints, average over models. Raises ConfigError for a missing checkpoint or a flat measure."""
        task = evidence.differentiable()
        references = self.references(evidence)
        dtype = precision_of(task)
        train, queries = Examples.training(task, dtype), Examples.queried(task, evidence.queries, dtype)
        total = torch.zeros(len(train), len(queries), dtype=torch.float64)
        used: list[int] = []
        for reference in references:
            checkpoints = self._checkpoints(reference)
            used = [checkpoint.epoch for checkpoint in checkpoints]
            for checkpoint, weight in zip(checkpoints, self._weights(checkpoints, task.recipe, task.n), strict=True):
                model = Model(task, checkpoint, dtype)
                measure = measure_to_differentiate(task, evidence.measure, model, queries)
                for where, rows in blocks(model, measure, queries, self.budget // 2):
                    total[:, where] -= weight * products(model, task.loss, train, rows, self.budget // 2)
        return attribution(total / len(references), self, len(references), epochs=used)

    def _checkpoints(self, reference: Reference) -> list[Checkpoint]:
        """Return the checkpoints to use, ascending."""
        kept = {checkpoint.epoch: checkpoint for checkpoint in reference.checkpoints}
        wanted = sorted(epoch for epoch in kept if epoch > 0) if self.epochs is None else sorted(set(self.epochs))
        missing = [epoch for epoch in wanted if epoch not in kept]
        if missing or not wanted:
            asked = f"checkpoints of epochs {missing}" if missing else "a checkpoint after epoch 0"
            raise ConfigError(f"tracin needs {asked}, the reference model of seed {reference.seed} has {sorted(kept)}")
        if self.weights == "segment" and wanted[0] == 0:
            raise ConfigError("tracin: epoch 0 in `epochs` has no steps before it, so no weight with weights=segment")
        return [kept[epoch] for epoch in wanted]

    def _weights(self, checkpoints: Sequence[Checkpoint], recipe: Recipe, n: int) -> list[float]:
        """Return w_c of every checkpoint."""
        if self.weights == "learning_rate":
            return [checkpoint.learning_rate for checkpoint in checkpoints]
        rates = recipe.learning_rates(n)
        gain = 1 / (1 - recipe.momentum) if recipe.optimizer == "sgd" else 1.0
        starts = [0, *(checkpoint.step for checkpoint in checkpoints[:-1])]
        spans = zip(starts, checkpoints, strict=True)
        return [float(rates[start : checkpoint.step].sum()) * gain / n for start, checkpoint in spans]
