"""The training recipe: everything about a training except the model, the data and the seed."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator


class Recipe(BaseModel):
    """How a differentiable task is trained. Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="the update rule")
    lr: float = Field(0.1, gt=0, description="peak learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="heavy-ball momentum (sgd)")
    nesterov: bool = Field(False, description="Nesterov's form of the momentum (sgd)")
    betas: tuple[float, float] = Field((0.9, 0.999), description="decay rates of the moments (adam, adamw)")
    eps: float = Field(1e-8, gt=0, description="denominator constant (adam, adamw)")
    weight_decay: float = Field(0.0, ge=0, description="L2 coefficient (sgd, adam) or decoupled decay (adamw)")
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = Field(
        "constant", description="learning rate over steps"
    )
    step_epochs: int = Field(10, ge=1, description="schedule step: epochs between two drops")
    step_factor: float = Field(0.1, gt=0, le=1, description="schedule step: factor of each drop")
    warmup: float = Field(0.25, gt=0, lt=1, description="schedule one_cycle: fraction of the steps that climb")
    batch_size: int = Field(64, ge=1, description="examples a step; the last batch of an epoch may be smaller")
    epochs: int = Field(10, ge=1, description="passes over the subset")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="classification: mass spread over all classes")
    crop: int = Field(0, ge=0, description="random crop after zero-padding by so many pixels; images (c, h, w)")
    flip: bool = Field(False, description="random horizontal flip; images (c, h, w)")
    precision: Literal["float32", "float64", "bf16"] = Field(
        "float32", description="dtype of parameters and arithmetic; bf16: products in bfloat16, all else in float32"
    )
    compile: bool = Field(
        False,
        description="let pack: auto try torch.compile, for networks that are no chain of Linear layers; takes seconds a worker",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0")
        return self

    def steps_per_epoch(self, subset_size: int) -> int:
        """Return the number of optimizer steps in one pass over `subset_size` examples."""
        return math.ceil(subset_size / self.batch_size)

    def learning_rates(self, subset_size: int) -> NDArray[np.float64]:
        """Return the learning rate of every step, shape (epochs * steps_per_epoch,).

        `cosine` falls from `lr` to 0 over all steps; `one_cycle` climbs linearly from 0 to `lr` during the `warmup`
        fraction and falls linearly to 0; `step` multiplies by `step_factor` every `step_epochs` epochs.
        """
        per_epoch = self.steps_per_epoch(subset_size)
        total = self.epochs * per_epoch
        step = np.arange(total, dtype=np.float64)
        if self.schedule == "step":
            factor = self.step_factor ** np.floor(step / per_epoch / self.step_epochs)
        elif self.schedule == "cosine":
            factor = 0.5 * (1 + np.cos(np.pi * step / total))
        elif self.schedule == "one_cycle":
            peak = self.warmup * total
            factor = np.interp(step + 1, [0, peak, total + 1], [0, 1, 0])
        else:
            factor = np.ones(total)
        return self.lr * factor
