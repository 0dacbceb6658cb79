"""Does one seed give one model? Asked once, before a sweep's first run."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from workers.errors import TaskError
from workers.own_training import OwnTraining
from workers.runs import Run
from workers.task import DifferentiableTask, Task, trains_itself
from workers.task_checks import check_values
from workers.training import alone

EXAMPLES = 64
"""The first so many are trained on, twice: an epoch by our training, whatever it takes by the task's own."""


def check_reproducible(task: Task | DifferentiableTask) -> None:
    """Train twice with one seed on a few examples; raise TaskError, naming a parameter, where the two models differ in a bit.

    Then there is a module of a task that trains itself: TaskError, too, where its loss or a measure is not one number an example.
    Of a black box nothing is known to compare. TaskErrors of the trainings are raised too; whatever else they raise is left to
    the runs, each of which says so for itself.
    """
    run = Run(0, np.arange(min(task.n, EXAMPLES), dtype=np.int64), 0)
    try:
        first, second = _trained(task, run), _trained(task, run)
    except TaskError:
        raise
    except Exception:
        return
    if first is None or second is None:
        return
    others = second.state_dict()
    for name, value in first.state_dict().items():
        if not torch.equal(value, others[name]):
            apart = float((value.double() - others[name].double()).abs().max())
            raise TaskError(
                f"{type(task).__name__}: trained twice with one seed on {len(run.subset)} examples, `{name}` differs by up to "
                f"{apart:.2g}: something is drawn that the seed does not govern"
            )
    if not isinstance(task, DifferentiableTask) and trains_itself(task):
        _check_numbers(OwnTraining(task), first)


def _check_numbers(own: OwnTraining, module: nn.Module) -> None:
    """Refuse a loss or a measure that is not one number an example. What else they raise is left to who calls them."""
    try:
        with torch.no_grad():
            check_values(own, module, type(own.task).__name__)
    except TaskError:
        raise
    except Exception:
        return


def _trained(task: Task | DifferentiableTask, run: Run) -> nn.Module | None:
    """Return the module of one training; None of a black box."""
    if isinstance(task, DifferentiableTask):
        short = copy.copy(task)
        batch = min(task.recipe.batch_size, len(run.subset))
        short.recipe = task.recipe.model_copy(update={"epochs": 1, "batch_size": batch})
        return alone.train(short, run)[0]
    return OwnTraining(task).train(run)[0] if trains_itself(task) else None
