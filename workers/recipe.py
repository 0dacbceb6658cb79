"""The training recipe: everything about a training except the model, the data and the seed."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from workers.errors import TaskError
from workers.learning_rates import dropping, one_cycle, warmed_up


class Recipe(BaseModel):
    """How a differentiable task is trained. Frozen; unknown keys are refused.

    - Every epoch the subset is shuffled and cut into batches of `batch_size`; after `accumulate` batches the optimizer takes
      a step. No step is shared by two epochs: the last one of an epoch takes the batches that are left.
    - With `drop_last` the last batch of an epoch is left out where it is smaller than `batch_size`, as PyTorch's data loader
      does; which examples that is changes with every epoch's order. Steps and schedules count what is left. In shared order it
      is the last batch of the full set.
    - A step's gradient is that of the mean loss over all examples of its batches, as one batch of that size would give but for
      normalizations over a batch. Dropout and augmentation are drawn for every batch.
    - With `clip_norm` c the gradient g of all trained parameters is multiplied by min(1, c / (norm(g) + 1e-6)), as torch's
      `clip_grad_norm_` does, before weight decay is added to it.
    - Patterns of `no_decay` are those of file names (`*`, `?`, `[...]`; `*` spans dots), held against `named_parameters`; one
      that matches no parameter is refused.
    - adam and adamw divide the mean gradient m by sqrt(v) + eps, or by sqrt(v + eps) with `eps_in: root`; m and v are
      corrected for their start at 0.
    - With `ema` d the average is a copy of the parameters after the first step, and average * d + parameters * (1 - d)
      after every other. At the end it takes the parameters' place: it is what is measured, and the checkpoint of the last epoch.
      Checkpoints before it have the parameters themselves, which is where the training was. Buffers, such as the
      running statistics of a normalization, are not averaged.
    - With `batch_norm: recomputed` the statistics of batch normalizations are, at the end, averages over the examples that the
      model was trained on, cut into parts of at most `batch_size`, with dropout and augmentation off.
    - With `warmup_steps` w (or `warmup_ratio` r of all steps: w = r * steps, rounded up) step k = 0, 1, ... has rate lr * k / w
      while k < w. Of the T - w steps that are left the j-th, from 0, has rate lr * (1 - j / (T - w)) by `linear`, and
      lr * (1 + cos(pi * j / (T - w))) / 2 by `cosine`.
    - Parameters whose `requires_grad` is false are left as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="the update rule")
    lr: float = Field(0.1, gt=0, description="peak learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="heavy-ball momentum (sgd)")
    nesterov: bool = Field(False, description="Nesterov's form of the momentum (sgd)")
    betas: tuple[float, float] = Field((0.9, 0.999), description="decay rates of the moments (adam, adamw)")
    eps: float = Field(1e-8, gt=0, description="denominator constant (adam, adamw)")
    eps_in: Literal["denominator", "root"] = Field(
        "denominator", description="where eps is added: sqrt(v) + eps, or sqrt(v + eps) (adam, adamw)"
    )
    weight_decay: float = Field(0.0, ge=0, description="L2 coefficient (sgd, adam) or decoupled decay (adamw)")
    no_decay: tuple[str, ...] = Field(
        (), description="parameters without weight decay: patterns of their names, such as *.bias"
    )
    clip_norm: float | None = Field(
        None, gt=0, description="largest norm of a step's gradient, all parameters together; null clips none"
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of an exponential moving average of the weights, which is then the model; null averages none",
    )
    schedule: Literal["constant", "linear", "cosine", "step", "one_cycle"] = Field(
        "constant", description="learning rate over steps"
    )
    warmup_steps: int = Field(
        0, ge=0, description="steps that climb from 0 before a constant, linear or cosine schedule"
    )
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="the same as a fraction of all steps, rounded up")
    step_epochs: int = Field(10, ge=1, description="schedule step: epochs between two drops")
    step_factor: float = Field(0.1, gt=0, le=1, description="schedule step: factor of each drop")
    warmup: float = Field(0.25, gt=0, lt=1, description="schedule one_cycle: fraction of the steps that climb")
    batch_size: int = Field(64, ge=1, description="examples a batch; the last one of an epoch may be smaller")
    drop_last: bool = Field(False, description="leave out an epoch's last batch where it is smaller than batch_size")
    accumulate: int = Field(1, ge=1, description="batches a step; the last step of an epoch may have fewer")
    epochs: int = Field(10, ge=1, description="passes over the subset")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="classification: mass spread over all classes")
    crop: int = Field(0, ge=0, description="random crop after zero-padding by so many pixels; images (c, h, w)")
    flip: bool = Field(False, description="random horizontal flip; images (c, h, w)")
    precision: Literal["float32", "float64", "bf16"] = Field(
        "float32", description="dtype of parameters and arithmetic; bf16: products in bfloat16, all else in float32"
    )
    batch_norm: Literal["running", "recomputed"] = Field(
        "running", description="statistics of a trained model: running averages, or recomputed on its subset"
    )
    compile: bool = Field(
        False,
        description="let pack: auto try torch.compile, for networks that are no chain of Linear layers; takes seconds a worker",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0")
        warmups = [name for name in ("warmup_steps", "warmup_ratio") if getattr(self, name)]
        if len(warmups) > 1:
            raise ValueError("warmup_steps and warmup_ratio are two ways to say the same: expected one of them")
        if warmups and self.schedule in ("step", "one_cycle"):
            raise ValueError(f"{warmups[0]} goes with schedule constant, linear or cosine, found {self.schedule}")
        return self

    def places_per_epoch(self, subset_size: int) -> int:
        """Return how many of `subset_size` examples one pass goes through: all but what `drop_last` leaves out."""
        return subset_size - subset_size % self.batch_size if self.drop_last else subset_size

    def check_places(self, subset_size: int) -> None:
        """Raise TaskError if `drop_last` leaves nothing of so many examples."""
        if self.drop_last and self.places_per_epoch(subset_size) == 0:
            raise TaskError(
                f"recipe.drop_last leaves no batch: {subset_size} examples are fewer than recipe.batch_size = {self.batch_size}"
            )

    def batches_per_epoch(self, subset_size: int) -> int:
        """Return the number of batches in one pass over `subset_size` examples."""
        return math.ceil(self.places_per_epoch(subset_size) / self.batch_size)

    def steps_per_epoch(self, subset_size: int) -> int:
        """Return the number of optimizer steps in one pass over `subset_size` examples."""
        return math.ceil(self.batches_per_epoch(subset_size) / self.accumulate)

    def learning_rates(self, subset_size: int) -> NDArray[np.float64]:
        """Return the learning rate of every step, shape (epochs * steps_per_epoch,).

        `constant`, `linear` and `cosine` begin at `lr`, after the warm-up; the last two fall to 0 over the steps that are left
        (`workers.learning_rates.warmed_up`). `one_cycle` climbs linearly from 0 to `lr` during the `warmup` fraction and falls
        linearly to 0; `step` multiplies by `step_factor` every `step_epochs` epochs.
        """
        per_epoch = self.steps_per_epoch(subset_size)
        total = self.epochs * per_epoch
        if self.schedule == "step":
            return self.lr * dropping(total, per_epoch, self.step_epochs, self.step_factor)
        if self.schedule == "one_cycle":
            return self.lr * one_cycle(total, self.warmup)
        return self.lr * warmed_up(self.schedule, total, self.warmup_steps or math.ceil(self.warmup_ratio * total))
