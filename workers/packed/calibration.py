"""Choose how a task is trained, once for each task and machine: every way is timed on a short training, the fastest is kept.

The choice is written to a folder (`COUNTERFACTORY_CACHE`, or the user's cache folder) and read from there ever after, so that
noise in the timing never changes a later pack. Where two workers calibrate at once, the first to finish decides for both.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path as FilePath
from typing import Literal

import numpy as np
import torch

from workers import training
from workers.errors import ConfigError
from workers.packed import kernels
from workers.packed.memory import largest_width
from workers.packed.plan import Path, Plan
from workers.packed.resident import Resident
from workers.packed.stacked import Stacked
from workers.runs import Run
from workers.streams import build_module
from workers.task import DifferentiableTask

Train = Callable[[list[Run]], object]

_FORMAT = 1
"""Raised whenever a kernel changes what it costs, so that old choices are measured anew."""
_GAIN = 1.05
"""A way must be so much faster than the simpler one to be taken."""
_REPEATS = 4
_STEPS = 8
"""Optimizer steps of a timed training."""


def plan_of(
    task: DifferentiableTask,
    device: str,
    width: int | Literal["auto"] = "auto",
    path: Path | Literal["auto"] = "auto",
) -> Plan:
    """Return how to train packs of the task on the device.

    A width of 1 is training alone; another number asks for packed training, in lockstep by so many where the resident kernels
    do not apply. "auto" is what was measured fastest. Raises ConfigError for a path that the task or the device does not allow.
    """
    if path == "resident" and not _is_resident(task, device):
        raise ConfigError("path 'resident' needs a chain of Linear layers with a built-in loss, on the CPU")
    if path == "auto" and width == "auto":
        return calibrated(task, device)
    if path == "auto":
        path = "alone" if width == 1 else "resident" if _is_resident(task, device) else "stacked"
    if path != "stacked":
        return Plan(path, 1, False, "as asked for")
    known = width if isinstance(width, int) else _best_stacked(_probe(task), device)[0]
    return Plan(path, known, False, "as asked for")


def calibrated(task: DifferentiableTask, device: str) -> Plan:
    """Return the plan measured for this task and machine, measuring now if nobody has."""
    file = _folder() / f"{_fingerprint(task, device)}.json"
    if not file.exists():
        _publish(measure(task, device), file)
    return Plan(**json.loads(file.read_text()))


def measure(task: DifferentiableTask, device: str) -> Plan:
    """Time every way of training the task and return the fastest as a plan whose reason tells the rates."""
    probe = _probe(task)
    if _is_resident(task, device):
        trainer = Resident.of(probe)
        assert trainer is not None
        alone, rate = _rates([_alone(probe, device, False), lambda runs: [trainer.train(run) for run in runs]], probe)
        told = f"resident kernels train {rate / alone:.2f} times as fast as alone"
        return Plan("resident", 1, False, told) if rate > alone * _GAIN else Plan("alone", 1, False, told)
    alone, channels_last, told = _best_alone(probe, device)
    width, rate = _best_stacked(probe, device)
    told += (
        f"; stacked by {width} {rate / alone:.2f} times as fast as that" if width > 1 else "; lockstep is not possible"
    )
    if rate <= alone * _GAIN:
        return Plan("alone", 1, channels_last, told)
    if torch.device(device).type == "cpu" and not is_reproducible(probe, width):
        told += ", but a run's last bits would depend on its neighbours: ask for a width to have it so"
        return Plan("alone", 1, channels_last, told)
    return Plan("stacked", width, False, told)


def is_reproducible(task: DifferentiableTask, width: int, device: str = "cpu") -> bool:
    """Whether, in lockstep, a run is bit for bit the same at another place of the pack and among fewer neighbours."""
    trainer, runs = Stacked(task, device), _runs(task, width)
    whole = trainer.train(runs)
    for pack in (runs[::-1], runs[: width // 2], runs[:1]):
        other = trainer.train(pack)
        for place, run in enumerate(pack):
            state = whole.state(run.row)
            if any(not torch.equal(value, state[name]) for name, value in other.state(place).items()):
                return False
    return True


def _alone(task: DifferentiableTask, device: str, channels_last: bool) -> Train:
    return lambda runs: [training.train(task, run, device, channels_last) for run in runs]


def _best_alone(task: DifferentiableTask, device: str) -> tuple[float, bool, str]:
    """Return the rate of the better memory layout, whether that is channels last, and a line about it."""
    if task.train_inputs.ndim != 4 or task.recipe.precision != "float32":
        return _rates([_alone(task, device, False)], task)[0], False, "alone"
    plain, last = _rates([_alone(task, device, False), _alone(task, device, True)], task)
    better = last > plain * _GAIN
    return (
        max(plain, last) if better else plain,
        better,
        f"alone, channels last {last / plain:.2f} times as fast as first",
    )


def _best_stacked(task: DifferentiableTask, device: str) -> tuple[int, float]:
    """Return the best width in lockstep and its rate; widths double while that pays and the memory allows."""
    trainer = Stacked(task, device)
    best = (1, 0.0)
    for width in _widths(largest_width(task, torch.device(device))):
        try:
            rate = _rates([trainer.train], task, width)[0]
        except (RuntimeError, NotImplementedError):  # an operation that torch.func cannot batch
            break
        if rate < best[1] * _GAIN:
            break
        best = (width, rate)
    return best


def _widths(most: int) -> Iterator[int]:
    width = 4
    while width <= most:
        yield width
        width *= 2


def _rates(ways: list[Train], task: DifferentiableTask, count: int = 1) -> list[float]:
    """Return the models per second of each way, the best of a few rounds in which they alternate, after one to warm up."""
    runs = _runs(task, count)
    seconds = [float("inf")] * len(ways)
    # One thread's own time is free of the noise of other processes; several threads, or a GPU, need the time that passes.
    one_thread = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    clock = time.thread_time if one_thread else time.perf_counter
    for turn in range(_REPEATS + 1):
        for place, train in enumerate(ways):
            started = clock()
            train(runs)
            if turn > 0:
                seconds[place] = min(seconds[place], clock() - started)
    return [count / best for best in seconds]


def _probe(task: DifferentiableTask) -> DifferentiableTask:
    """Return the task with one epoch; the runs make it short."""
    probe = copy.copy(task)
    probe.recipe = task.recipe.model_copy(update={"epochs": 1})
    return probe


def _runs(task: DifferentiableTask, count: int) -> list[Run]:
    size = min(task.n, _STEPS * task.recipe.batch_size)
    return [Run(row, np.arange(size, dtype=np.int64), row) for row in range(count)]


def _is_resident(task: DifferentiableTask, device: str) -> bool:
    return torch.device(device).type == "cpu" and Resident.of(task) is not None


def _folder() -> FilePath:
    """Return the folder of the choices, made if need be. Raises ConfigError when it cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME") or FilePath.home() / ".cache"
    folder = FilePath(os.environ.get("COUNTERFACTORY_CACHE") or FilePath(base) / "counterfactory") / "packing"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write the cache folder {folder}: {error.strerror}; name another in COUNTERFACTORY_CACHE"
        ) from error
    return folder


def _fingerprint(task: DifferentiableTask, device: str) -> str:
    """Return a hash of all that decides which way is fastest."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else kernels.CPU_NAME
    module, _ = build_module(task.module, 0, torch.float32)
    told = [
        _FORMAT, f"{type(task).__module__}.{type(task).__qualname__}", repr(module), task.recipe.model_dump_json(),
        list(task.train_inputs.shape), str(task.train_inputs.dtype), device, name,
        torch.__version__, torch.get_num_threads(), task.train_weights is not None,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _publish(plan: Plan, file: FilePath) -> None:
    """Write the plan unless another worker's is there already."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".part", delete=False) as part:
        json.dump(asdict(plan), part)
    try:
        os.link(part.name, file)
    except FileExistsError:
        pass
    finally:
        os.unlink(part.name)
