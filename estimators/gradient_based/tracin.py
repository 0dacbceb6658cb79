"""TracIn: follow the gradient steps of training through its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from estimators.evidence import Evidence, Reference
from estimators.gradient_based.every_step import EveryStep, check_steps
from estimators.gradient_based.optimizer_products import OptimizerProducts, stepping_recipe
from estimators.gradient_based.trajectory import TrajectoryEstimator, TrajectoryProducts
from estimators.reference_estimator import Material, ModelEffects
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from workers.task import GradientTask


class TracIn(TrajectoryEstimator):
    """tau[i, q] = - sum over checkpoints c of w_c <grad f_q(theta_c), grad loss_i(theta_c)>, averaged over models.

    TracInCP (Pruthi et al. 2020): a gradient step on example i moves theta by -lr * grad loss_i, so moves
    the measure f_q by tau. A checkpoint stands for the stretch of training that ends at it:

    - `weights: learning_rate`: w_c is the learning rate of the last step before the checkpoint, as in the paper.
      Unit-free: the number of visits and the batch size are left out. A schedule that ends at 0 gives the last
      checkpoint almost no weight.
    - `weights: segment`: w_c = (1/n) * sum of the learning rates of all steps since the checkpoint used before it (or
      since the start), times 1 / (1 - momentum) for sgd. In a random order each epoch visits i once, in a step of rate
      lr and batch size B with probability B/n, and moves theta by lr/B: the sum is the expected coefficient of grad
      loss_i, so tau is in units of the measure for sgd. Where the
      recipe averages the weights (`ema`), a step counts by the part of it that is in the average at the end:
      1 - ema**(steps from it to the end), and 1 for the first. Where it clips gradients (`clip_norm`), a step's
      coefficient depends on all gradients in it, and this is refused.

    `direction` is what a step on example i alone moves theta along:

    - `gradient`: grad loss_i, as in the paper, whatever the optimizer.
    - `preconditioned`: P grad loss_i for adam and adamw, with P = 1 / (sqrt(v) + eps) or 1 / sqrt(v + eps) of the running mean v
      of squares at the checkpoint, corrected for its start: what a weight on the example's loss does to all later steps, as
      long as v stays. With `weights: segment` tau is in units of the measure for these, too.
    - `step`: Gamma_i = m' / (sqrt(v') + eps), with m' and v' after the gradient has entered them: LESS's form (Xia et al. 2024,
      section 4.1) without its projection and lengths. It is no linear function of grad loss_i, and unit-free.

    For sgd all three are the gradient. `moments` says where m and v are from.

    TracIn on the last layer alone, as the paper has it for large models, is `parameters: [head.*]`, the names of the layer's
    parameters: gradients of others are then not taken at all.

    With `steps: all` every step is looked at instead, replayed from what was kept (TracIn's ideal, Pruthi et al. 2020, section
    3.1): a visit of example i in a step of rate lr and batch size B brings - lr / B <grad f_q(theta), grad loss_i(theta)> at the
    parameters before that step, times 1 / (1 - momentum) for sgd, whatever `weights`: in units of the measure for sgd. All
    other steps are left as they were: `unrolled` says what they make of it. Decay, averages and preconditioning are left out.

    No stretch ends at the initial model, so epoch 0 is left out unless named in `epochs`; it then weighs as much as the
    learning rate of the first step, and is refused with `segment`.

    >>> from estimators.gradient_based.tracin import TracIn
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = TracIn().attribute(evidence)
    >>> made.values.shape, made.models
    ((24, 4), 2)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "tracin"

    weights: Literal["learning_rate", "segment"] = Field(
        "learning_rate",
        description="weight of a checkpoint: its learning rate, or the sum over the steps it stands for / n",
    )

    direction: Literal["gradient", "preconditioned", "step"] = Field(
        "gradient",
        description="adam, adamw: what a step moves along, the example's gradient, the same divided by the root of the second "
        "moment, or all of the optimizer's step on it",
    )
    moments: Literal["kept", "expected"] = Field(
        "kept",
        description="for a direction of adam's or adamw's: the running means, as checkpoints keep them with "
        "optimizer_state: true, or those of batches at the checkpoint",
    )
    steps: Literal["checkpoints", "all"] = Field(
        "checkpoints", description="look at the checkpoints kept, or at all steps of the training, which is replayed"
    )

    @property
    def claims_units(self) -> bool:
        """Where a checkpoint weighs as much as its steps, which are linear in the example's gradient, or all are looked at."""
        return (self.weights == "segment" and self.direction != "step") or self.steps == "all"

    def check(self, evidence: Evidence) -> None:
        """Refuse a measure that cannot be differentiated, an optimizer that nobody told, and what `steps: all` cannot follow."""
        super().check(evidence)
        self._check_steps(evidence.differentiable())

    def effects(self, material: Material) -> ModelEffects:
        """Sum over checkpoints, average over models. Raises ConfigError for a missing checkpoint or a flat measure."""
        self._check_steps(material.task)
        if self.steps == "all":
            return EveryStep(self, material)
        if self.direction == "gradient":
            return TrajectoryProducts(self, material)
        return OptimizerProducts(self, material, self.direction, self.moments)

    def _check_steps(self, task: GradientTask) -> None:
        """Refuse options that do not go together. Raises ConfigError for these, and for a task that they cannot follow."""
        if self.direction != "gradient":
            stepping_recipe(self.name, task)
        if self.steps == "checkpoints":
            return
        if self.direction != "gradient":
            raise ConfigError(f"tracin: steps: all goes along gradients, found direction: {self.direction}")
        if self.weights == "segment":
            raise ConfigError(
                "tracin: weights: segment weighs checkpoints; with steps: all every step has its own rate"
            )
        check_steps(self, task)

    def checkpoints(self, reference: Reference) -> list[Checkpoint]:
        """Return the checkpoints to use, ascending. Raises ConfigError for the initial model with `segment`."""
        found = super().checkpoints(reference)
        if self.weights == "segment" and found[0].epoch == 0:
            raise ConfigError("tracin: epoch 0 in `epochs` has no steps before it, so no weight with weights=segment")
        return found

    def weights_of(self, checkpoints: Sequence[Checkpoint], task: GradientTask) -> list[float]:
        """Return w_c of every checkpoint.

        Raises ConfigError where the task did not tell what it needs, and for a segment of steps that are clipped.
        """
        if self.weights == "learning_rate":
            return self.last_rates(checkpoints)
        recipe, n = task.recipe, task.n
        if recipe is None:
            raise ConfigError(
                "tracin: weights=segment needs the learning rate of every step, and the task has no `recipe`"
            )
        if recipe.clip_norm is not None:
            raise ConfigError(
                "tracin: weights=segment needs steps whose gradients are not clipped, "
                f"the recipe has clip_norm {recipe.clip_norm:g}: use weights=learning_rate"
            )
        rates = recipe.learning_rates(n)
        if recipe.ema is not None:
            steps_to_end = np.arange(len(rates), 0, -1)
            rates[1:] *= 1 - recipe.ema ** steps_to_end[1:]
        gain = 1 / (1 - recipe.momentum) if recipe.optimizer == "sgd" else 1.0
        starts = [0, *(checkpoint.step for checkpoint in checkpoints[:-1])]
        spans = zip(starts, checkpoints, strict=True)
        return [float(rates[start : checkpoint.step].sum()) * gain / n for start, checkpoint in spans]
