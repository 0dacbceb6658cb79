"""Does one seed give one model? Asked once, before a sweep's first run."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from workers.errors import TaskError
from workers.own_training import OwnTraining
from workers.runs import Run
from workers.task import DifferentiableTask, Task, trains_itself
from workers.training import alone

EXAMPLES = 64
"""The first so many are trained on, twice: an epoch by our training, whatever it takes by the task's own."""


def check_reproducible(task: Task | DifferentiableTask) -> None:
    """Train twice with one seed on a few examples; raise TaskError, naming a parameter, where the two models differ in a bit.

    Of a black box nothing is known to compare. TaskErrors of the trainings are raised too; whatever else they raise is left to
    the runs, each of which says so for itself.
    """
    run = Run(0, np.arange(min(task.n, EXAMPLES), dtype=np.int64), 0)
    try:
        first, second = _state(task, run), _state(task, run)
    except TaskError:
        raise
    except Exception:
        return
    for name, value in first.items():
        if not torch.equal(value, second[name]):
            apart = float((value.double() - second[name].double()).abs().max())
            raise TaskError(
                f"{type(task).__name__}: trained twice with one seed on {len(run.subset)} examples, `{name}` differs by up to "
                f"{apart:.2g}: something is drawn that the seed does not govern"
            )


def _state(task: Task | DifferentiableTask, run: Run) -> Mapping[str, Tensor]:
    """Return the parameters and buffers of one training; none of a black box."""
    if isinstance(task, DifferentiableTask):
        short = copy.copy(task)
        batch = min(task.recipe.batch_size, len(run.subset))
        short.recipe = task.recipe.model_copy(update={"epochs": 1, "batch_size": batch})
        return dict(alone.train(short, run)[0].state_dict())
    return dict(OwnTraining(task).train(run)[0].state_dict()) if trains_itself(task) else {}
