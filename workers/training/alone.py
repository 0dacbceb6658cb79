"""Train one differentiable model on one subset, the plain way: the reference that packed training must agree with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.runs import Checkpoint, Queries, Run
from workers.task import DifferentiableTask
from workers.training.course import Course
from workers.training.precision import DTYPES
from workers.training.watching import Glimpse, Watcher, show


def train(
    task: DifferentiableTask,
    run: Run,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    watcher: Watcher | None = None,
) -> tuple[nn.Module, tuple[Checkpoint, ...]]:
    """Train on `run.subset` with `run.seed`; return the module in eval mode, and the checkpoints asked for.

    With the recipe's `ema` the module, and the checkpoint of the last epoch, have the average of the parameters; checkpoints
    before it have the parameters themselves, for they are where the training was.

    `channels_last` lays images and convolutions out with channels last: faster or slower, and the same but for rounding.
    `watcher` is shown the training after every step that it wants to see.
    """
    course = Course(task, run, device, channels_last)
    kept = [course.checkpoint(0)] if 0 in run.checkpoint_epochs else []
    for epoch in range(1, task.recipe.epochs + 1):
        for _ in range(course.steps_per_epoch):
            course.advance()
            epoch_done, rate = course.step // course.steps_per_epoch, course.rates[course.step - 1]
            glimpse = Glimpse(epoch_done, course.step, rate, course.module, course.descent.optimizer)
            show(watcher, glimpse, course.steps_per_epoch)
        if epoch == task.recipe.epochs:
            course.finish()
        if epoch in run.checkpoint_epochs:
            kept.append(course.checkpoint(epoch))
    course.draws.check()
    return course.module.eval(), tuple(kept)


@torch.no_grad()
def measure(
    task: DifferentiableTask,
    module: nn.Module,
    names: Sequence[str],
    queries: Queries,
    device: torch.device | str = "cpu",
    batch: int = 4096,
) -> Mapping[str, NDArray[np.float32]]:
    """Return the outputs of a trained module in eval mode: for every measure named, (t,) float32."""
    examples = task.examples(queries.source).to(DTYPES[task.recipe.precision], device)
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for indices in torch.split(torch.from_numpy(queries.take(len(examples))), batch):
        x, y = examples.read(indices)
        outputs = task.call(module, x)
        for name in names:
            parts[name].append(task.measurement(name)(outputs, y))
    return {name: torch.cat(values).float().cpu().numpy() for name, values in parts.items()}
