"""Sensitivities during training: a watcher that records them, for our trainings and for anybody's loop."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from estimators.gradients.functional_model import Examples, Model, precision_of
from estimators.sensitivity.equation import Sensitivities
from estimators.sensitivity.kronecker import by_layers
from estimators.sensitivity.of_model import by_diagonal, diagonal_adam, diagonal_newton, left_out_losses
from workers.errors import ConfigError, DivergedError
from workers.runs import Checkpoint
from workers.task import GradientTask
from workers.training.watching import Moment

KnownRow = Literal["newton", "kfac", "adam"]


@dataclass(frozen=True)
class Record:
    """The sensitivities at one moment of a training."""

    epoch: int
    step: int
    magnitudes: NDArray[np.float32]
    """(n,) |v_i e_i|, in units of the outputs."""
    self_influence: NDArray[np.float32]
    """(n,) e_i^T v_i e_i, in units of the loss."""
    training_loss: float
    """Mean loss of the training examples."""
    left_out_loss: float
    """Mean loss of the training examples, were each left out: sum of loss(f_i + v_i e_i) / n, which predicts the test loss."""
    seconds: float
    """What looking took."""


class SensitivityRecorder:
    """Records the sensitivities of n examples at the epochs, or the steps, that it is to look at.

    `row` newton takes the diagonal of the Gauss-Newton matrix, kfac the whole of it layer by layer (dearer, and nearer), adam
    the optimizer's own second moments: it needs `torch.optim.Adam`, `AdamW` or RMSprop. `precision` is what the mean loss's
    curvature gets added, its L2 coefficient and any damping: the prior's precision over n. Jacobians are those of the module in
    evaluation mode, on a copy: nothing of the training changes, and nothing is drawn.

    A loop of one's own calls `look(Moment(epoch, step, learning_rate, module, optimizer))`.
    """

    def __init__(
        self,
        task: GradientTask,
        precision: float,
        row: KnownRow = "newton",
        epochs: Collection[int] | None = None,
        steps: Collection[int] = (),
        examples: NDArray[np.int64] | None = None,
        memory_gb: float = 1.0,
    ):
        """`epochs` None looks after every epoch; `examples` (n,) are those trained on, None for all."""
        if precision < 0:
            raise ConfigError(f"precision is added to a curvature: expected 0 or more, found {precision:g}")
        self.records: list[Record] = []
        self._task, self._precision, self._row = task, precision, row
        self._epochs, self._steps = epochs, steps
        self._dtype = precision_of(task)
        every = Examples.training(task, self._dtype)
        chosen = None if examples is None else torch.from_numpy(examples)
        self._examples = (
            every
            if chosen is None
            else Examples(every.readable, chosen, None if every.weights is None else every.weights[chosen])
        )
        self._budget = int(memory_gb * 2**30)

    def wants(self, epoch: int, step: int, ends_epoch: bool) -> bool:
        """Say whether this moment is one of those to look at."""
        return step in self._steps or (ends_epoch and (self._epochs is None or epoch in self._epochs))

    def look(self, moment: Moment) -> None:
        """Record the sensitivities. Raises ConfigError for an optimizer that row `adam` does not know, DivergedError for NaN."""
        started = time.perf_counter()
        state = {name: value.detach().cpu() for name, value in moment.module.state_dict().items()}
        model = Model(self._task, Checkpoint(moment.epoch, moment.step, moment.learning_rate, state), self._dtype)
        found = self._found(moment, model)
        losses = left_out_losses(self._task, model, self._examples, found.outputs)
        without = left_out_losses(self._task, model, self._examples, found.left_out_outputs)
        numbers = [float(losses.double().mean()), float(without.double().mean())]
        if not np.isfinite(numbers).all():
            raise DivergedError(f"sensitivities after step {moment.step} are not finite: the training diverged")
        self.records.append(
            Record(
                moment.epoch,
                moment.step,
                found.magnitudes.float().numpy(),
                found.self_influence.float().numpy(),
                numbers[0],
                numbers[1],
                time.perf_counter() - started,
            )
        )

    def _found(self, moment: Moment, model: Model) -> Sensitivities:
        of = (model, self._task, self._examples)
        if self._row == "kfac":
            return by_layers(*of, self._precision, self._budget)
        if self._row == "newton":
            return by_diagonal(*of, diagonal_newton(self._precision), self._budget)
        second = second_moment(moment.optimizer, moment.module, model)
        return by_diagonal(*of, diagonal_adam(second, self._precision), self._budget)


def second_moment(optimizer: torch.optim.Optimizer | None, module: nn.Module, model: Model) -> Tensor:
    """Return the running mean of squared gradients (p,), corrected for its start where the optimizer corrects it.

    Raises ConfigError for an optimizer that has none, or that has not taken a step.
    """
    known = (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)
    if not isinstance(optimizer, known):
        found = "none" if optimizer is None else type(optimizer).__name__
        raise ConfigError(f"row adam reads the second moments of Adam, AdamW or RMSprop, found optimizer {found}")
    groups = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    tree: dict[str, Tensor] = {}
    for name, value in module.named_parameters():
        if name not in model.parameters:
            continue
        state = optimizer.state.get(value, {})
        key = "square_avg" if isinstance(optimizer, torch.optim.RMSprop) else "exp_avg_sq"
        if key not in state:
            raise ConfigError(f"row adam: the optimizer has no second moment of {name!r}: expected a step before")
        corrected = 1.0
        if key == "exp_avg_sq":
            corrected = 1 - groups[id(value)]["betas"][1] ** float(state["step"])
        tree[name] = (state[key].detach().cpu() / corrected).to(model.dtype)
    return model.flatten({name: value.unsqueeze(0) for name, value in tree.items()})[0]
