"""Which way of training a task is the fastest: each is timed on a short training, and what was not taken has its reason."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from workers.errors import one_line
from workers.packed.memory import is_out_of_memory, largest_width
from workers.packed.resident import Resident
from workers.packed.stacked import Stacked
from workers.packed.strategy import Method, Strategy
from workers.runs import Run
from workers.task import DifferentiableTask
from workers.training import alone

Train = Callable[[list[Run]], object]

_GAIN = 1.05
"""A way must be so much faster than the simpler one to be taken."""
_HOPELESS = 0.25
"""A way that warms up at so small a fraction of the other's rate is not timed any further."""
_NARROWEST = 4
"""Models of the first lockstep that is tried."""
_ROUNDS = 4
_STEPS = 8
"""Optimizer steps of a timed training, fewer if they take longer than `_SECONDS`."""
_SECONDS = 0.2
_ENOUGH = 1.0
"""Seconds of each way, after warming up, that are timed in fewer rounds."""


class Probe:
    """One epoch of a task on a few batches, to be timed in several ways."""

    def __init__(self, task: DifferentiableTask, device: str):
        self.task, self.device = copy.copy(task), device
        self.task.recipe = task.recipe.model_copy(update={"epochs": 1})
        self.most: int | None = None
        """Most models that a pack has; None where that is not known."""
        self.steps = 1
        one_step = 1 / self.rates([self.alone()], rounds=1)[0]
        self.steps = int(np.clip(_SECONDS / one_step, 1, _STEPS))

    def widest(self) -> int:
        """Return the most models to train together: those that fit into memory, and no more than a pack has."""
        fitting = largest_width(self.task, torch.device(self.device))
        return fitting if self.most is None else min(fitting, self.most)

    @property
    def limit(self) -> str:
        """What bounds the width, in words."""
        fitting = largest_width(self.task, torch.device(self.device))
        return "memory" if self.most is None or fitting < self.most else f"packs of {self.most}"

    def alone(self, channels_last: bool = False) -> Train:
        """Return training one after another, the plain way."""
        return lambda runs: [alone.train(self.task, run, self.device, channels_last) for run in runs]

    def runs(self, count: int) -> list[Run]:
        """Return runs on the first steps' examples of the training set, each with its own seed."""
        recipe = self.task.recipe
        size = min(self.task.n, self.steps * recipe.batch_size * recipe.accumulate)
        return [Run(row, np.arange(size, dtype=np.int64), row) for row in range(count)]

    def rates(self, ways: list[Train], count: int = 1, rounds: int = _ROUNDS, least: float = 0.0) -> list[float]:
        """Return the models a second of each way: its best of some rounds in which they alternate, after one to warm up.

        There are fewer rounds where one takes long: the longer a training, the less noise is in its time. A way whose rate
        while warming up is below `least` is left at that.
        """
        # One thread's own time is free of the noise of other processes; several threads, or a GPU, need the time that passes.
        one_thread = torch.get_num_threads() == 1 and torch.device(self.device).type == "cpu"
        clock = time.thread_time if one_thread else time.perf_counter
        runs = self.runs(count)

        def seconds(train: Train) -> float:
            started = clock()
            train(runs)
            return clock() - started

        warm = [seconds(way) for way in ways]
        best = [value if count / value < least else float("inf") for value in warm]
        spent = 0.0
        for _ in range(rounds):
            for place, way in enumerate(ways):
                if count / warm[place] >= least:
                    spent += (took := seconds(way))
                    best[place] = min(best[place], took)
            if spent >= _ENOUGH * len(ways):
                break
        return [count / value for value in best]


def fastest(task: DifferentiableTask, device: str, pack: int | None = None) -> Strategy:
    """Return the fastest way as a strategy whose reason tells the rates. Whatever the task's own code raises is passed on.

    No more than `pack` models are tried together, where packs have no more: a compiled step would be filled up with copies.
    """
    probe = Probe(task, device)
    if is_resident(task, device):
        trainer = Resident.of(probe.task)
        assert trainer is not None
        alone, rate = probe.rates(
            [probe.alone(), lambda runs: [trainer.train(run, trainer.begin(run)) for run in runs]]
        )
        reason = f"resident kernels {rate / alone:.2f} times as fast as alone, on a short training"
        return Strategy("resident", 1, False, reason) if rate > alone * _GAIN else Strategy("alone", 1, False, reason)
    alone, channels_last, reason = _best_alone(probe)
    probe.most = pack
    width, rate, why_not = best_lockstep(probe, least=alone * _HOPELESS)
    reason += f"; lockstep by {width} {rate / alone:.2f} times as fast" if width > 1 else "; lockstep is not possible: "
    reason += why_not
    ways: list[tuple[float, Method, int]] = [(rate, "stacked", width)]
    if task.recipe.compile and width > 1:
        narrow, compiled, why_not = compiled_lockstep(probe, width)
        reason += (
            f", compiled by {narrow} {compiled / alone:.2f} times" if compiled else f", compiling failed: {why_not}"
        )
        ways.append((compiled, "compiled", narrow))
    for rate, method, width in sorted(ways, reverse=True):
        if rate <= alone * _GAIN:
            break
        if torch.device(device).type != "cpu" or is_reproducible(probe, method, width):
            return Strategy(method, width, False, reason)
        reason += f", but {method} a run's last bits would depend on its neighbours"
        reason += ": ask for a width to have it so" + ("" if task.recipe.compile else ", or for recipe.compile")
    return Strategy("alone", 1, channels_last, reason)


def is_resident(task: DifferentiableTask, device: str) -> bool:
    """Whether the resident kernels can train the task there."""
    return torch.device(device).type == "cpu" and Resident.of(task) is not None


def _best_alone(probe: Probe) -> tuple[float, bool, str]:
    """Return the rate of the better memory layout, whether that is channels last, and a phrase about it."""
    if not _are_images(probe.task) or probe.task.recipe.precision == "float64":
        return probe.rates([probe.alone()])[0], False, "alone"
    plain, last = probe.rates([probe.alone(), probe.alone(channels_last=True)])
    reason = f"alone, channels last {last / plain:.2f} times as fast as first"
    return (last, True, reason) if last > plain * _GAIN else (plain, False, reason)


def _are_images(task: DifferentiableTask) -> bool:
    """Whether all inputs are one tensor (n, c, h, w)."""
    return task.train_data is None and getattr(task.train_inputs, "ndim", 0) == 4


class Reached(NamedTuple):
    """What lockstep reached."""

    width: int
    """Models together; 1, or 0 compiled, where there is no lockstep."""
    rate: float
    """Models a second."""
    why_not: str = ""
    """One line: why there is none."""


def best_lockstep(probe: Probe, least: float = 0.0) -> Reached:
    """Return the best width in lockstep and its rate; widths double while that pays, the memory allows
    and packs have so many.

    A width of 1 and why, where an operation of the module cannot be batched, or few models do not fit. What the task's own code
    raises is passed on.
    """
    trainer = Stacked(probe.task, probe.device)
    best = Reached(1, 0.0, f"{_NARROWEST} models do not fit into {probe.limit}")
    for width in _widths(probe.widest()):
        try:
            rate = probe.rates([trainer.train], width, least=least)[0]
        except Exception as error:
            why = _why_not(probe, width, error)
            return best if best.width > 1 else Reached(1, 0.0, why)
        if rate < best.rate * _GAIN:
            break
        best = Reached(width, rate)
        if rate < least:
            break
    return best


def compiled_lockstep(probe: Probe, width: int) -> Reached:
    """Return the width at which the compiled step is fastest, and its rate; or 0, 0 and why there is none."""
    most = probe.widest()
    rates: dict[int, float] = {}
    for each in sorted({min(most, max(width, 16)), min(most, max(width // 2, 8))}):
        try:
            rates[each] = probe.rates([Stacked(probe.task, probe.device, each).train], each)[0]
        except Exception as error:  # whatever the compiler cannot do, or no compiler
            return Reached(0, 0.0, _why_not(probe, each, error))
    best = max(rates, key=rates.__getitem__)
    return Reached(best, rates[best])


def _why_not(probe: Probe, count: int, error: Exception) -> str:
    """Return in one line why so many models could not be trained together.

    torch.func says by a plain RuntimeError that it cannot batch an operation, or that the module looks at its data; so does a
    compiler, by any exception; and so may the user's own code say something else. The same runs trained alone tell them apart:
    what that raises is the task's own fault, and is passed on.
    """
    if not is_out_of_memory(error):
        probe.alone()(probe.runs(count))
    return one_line(error)[:200]


def _widths(most: int) -> Iterator[int]:
    width = _NARROWEST
    while width <= most:
        yield width
        width *= 2


def is_reproducible(probe: Probe, method: Method, width: int) -> bool:
    """Whether, in lockstep, a run is bit for bit the same at another place of the group and among fewer neighbours."""
    trainer, runs = Stacked(probe.task, probe.device, width if method == "compiled" else 0), probe.runs(width)
    whole = trainer.train(runs)
    for group in (runs[::-1], runs[: width // 2], runs[:1]):
        other = trainer.train(group)
        for place, run in enumerate(group):
            state = whole.state(run.row)
            if any(not torch.equal(value, state[name]) for name, value in other.state(place).items()):
                return False
    return True
