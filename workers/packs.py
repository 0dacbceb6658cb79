"""Train a pack: the runs that one worker does together. What the scheduler calls, and all it needs to know of workers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from workers import training
from workers.errors import DivergedError, TaskError, near
from workers.runs import Checkpoint, Failure, Outcome, OutOfMemory, Queries, Run
from workers.task import DifferentiableTask, Task


def train_pack(
    task: Task | DifferentiableTask,
    runs: Sequence[Run],
    measures: Sequence[str],
    queries: Queries,
    device: str = "cpu",
) -> list[Outcome]:
    """Train every run and measure it; return one outcome a run, in order.

    An exception of the user's code becomes that run's `Failure`. Raises OutOfMemory, with nothing returned, when the device
    is too small for the pack.
    """
    return [_train_alone(task, run, measures, queries, device) for run in runs]


def _train_alone(
    task: Task | DifferentiableTask, run: Run, measures: Sequence[str], queries: Queries, device: str
) -> Outcome:
    started = time.perf_counter()
    checkpoints: tuple[Checkpoint, ...] = ()
    outputs: Mapping[str, NDArray[np.float32]]
    try:
        if isinstance(task, DifferentiableTask):
            module, checkpoints = training.train(task, run, device)
            outputs = training.measure(task, module, measures, queries, device)
        else:
            outputs = _measure_black_box(task, task.train(run.subset, run.seed), measures, queries)
        _refuse_non_finite(outputs)
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"run {run.row}: {error}") from error
    except Exception as error:
        return Outcome(run.row, failure=Failure.of(error), seconds=time.perf_counter() - started)
    return Outcome(run.row, outputs, checkpoints, seconds=time.perf_counter() - started)


def _measure_black_box(
    task: Task, model: object, measures: Sequence[str], queries: Queries
) -> Mapping[str, NDArray[np.float32]]:
    """Ask the task for its measures and take the chosen queries; each must be a (t,) array."""
    train_queries = queries.source == "train"
    count = task.n if train_queries else task.t
    measured = task.measure_train(model) if train_queries else task.measure(model)  # type: ignore[attr-defined]
    outputs = {}
    for name in measures:
        if name not in measured:
            raise TaskError(f"{type(task).__name__}.measure() has no {name!r}: {near(name, list(measured))}")
        values = np.asarray(measured[name], dtype=np.float32)
        if values.shape != (count,):
            raise TaskError(f"{type(task).__name__}.measure()[{name!r}] has shape {values.shape}, expected ({count},)")
        outputs[name] = values[queries.take(count)]
    return outputs


def _refuse_non_finite(outputs: Mapping[str, NDArray[np.float32]]) -> None:
    """Raise DivergedError if any output is NaN or infinite."""
    for name, values in outputs.items():
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise DivergedError(f"measure {name!r} is not finite for {bad} of {len(values)} queries")
