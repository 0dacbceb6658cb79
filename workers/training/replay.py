"""A training once more: any of its steps from the nearest moment that was kept, to the same bits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from workers.errors import TaskError
from workers.recipe import Recipe
from workers.runs import Checkpoint, Run
from workers.task import DifferentiableTask
from workers.training.course import Course, Feed, Moment


class Replay:
    """The steps of a finished training, taken again the way `workers.training.alone` takes them.

    It can begin at step 0, and at every checkpoint that has the optimizer's state, or whose optimizer has none. Wherever a replay
    comes past a checkpoint, the two are compared.
    """

    def __init__(
        self,
        task: DifferentiableTask,
        run: Run,
        checkpoints: Sequence[Checkpoint],
        drift: float = 0.0,
        device: torch.device | str = "cpu",
    ):
        """`drift` is the largest relative difference from a checkpoint that is accepted: with 0 the bits must be the same.

        Raises TaskError for checkpoints that were kept under another recipe.
        """
        self.course = Course(task, replace(run, checkpoint_epochs=(), optimizer_state=False), device)
        self.recipe, self.drift = task.recipe, drift
        self.steps = len(self.course.rates)
        """Of the whole training."""
        self._kept = {one.step: one for one in checkpoints}
        for checkpoint in checkpoints:
            _check_recipe(checkpoint, self.course)
        self._begun = self.course.moment()

    @property
    def starts(self) -> list[int]:
        """Steps at which it can begin, ascending."""
        return [
            0,
            *sorted(step for step, one in self._kept.items() if 0 < step < self.steps and _is_whole(one, self.recipe)),
        ]

    def begin(self, step: int) -> None:
        """Be before a step: at the nearest start at or before it, and from there by replay."""
        start = max(one for one in self.starts if one <= step)
        self.move_to(self._begun if start == 0 else _moment_of(self._kept[start]))
        while self.course.step < step:
            self.advance()

    def move_to(self, moment: Moment) -> None:
        """Be at a moment of this training, as `course.moment()` returned it."""
        self.course.move_to(moment)

    def advance(self) -> list[Feed]:
        """Take the next step; return its batches. Raises TaskError where a checkpoint at its end is not what was replayed."""
        feeds = self.course.advance()
        if self.course.step == self.steps:
            self.course.finish()
        kept = self._kept.get(self.course.step)
        if kept is not None:
            self._compare(kept)
        return feeds

    def moments(self, start: int, stop: int, every: int = 1) -> Iterator[Moment]:
        """Yield copies of where the training was before steps start, start + every, ..., below stop, and end at stop.

        Raises TaskError as `advance` does.
        """
        self.begin(start)
        while self.course.step < stop:
            if (self.course.step - start) % every == 0:
                yield self.course.moment()
            self.advance()

    def backwards(self) -> Iterator[tuple[Moment, list[Feed]]]:
        """Yield every step from the last to the first: where the training was before it, and its batches.

        Each stretch between two starts longer than the root of all steps is gone through once to keep moments so far apart, then
        piece by piece: every step is taken at most twice, and at most about two roots of moments are held.
        """
        root = math.isqrt(max(0, self.steps - 1)) + 1
        for start, stop in reversed(list(pairwise([*self.starts, self.steps]))):
            if stop - start <= root:
                self.begin(start)
                pieces = [self.course.moment()]
            else:
                pieces = list(self.moments(start, stop, every=root))
            while pieces:
                begun = pieces.pop()
                self.move_to(begun)
                taken = []
                while self.course.step < stop:
                    moment = self.course.moment()
                    taken.append((moment, self.advance()))
                stop = begun.step
                while taken:
                    yield taken.pop()

    def _compare(self, kept: Checkpoint) -> None:
        """Raise TaskError, which tells how much, if the module is not what the checkpoint has."""
        found = self.course.module.state_dict()
        if found.keys() != kept.state.keys():
            raise TaskError(f"the checkpoint of epoch {kept.epoch} does not fit the task's module")
        pairs = [(value.detach().cpu(), kept.state[name]) for name, value in found.items()]
        if all(torch.equal(one, other) for one, other in pairs):
            return
        apart = _difference(pairs)
        if not apart <= self.drift:
            raise TaskError(
                f"replaying the training of seed {self.course.run.seed} gives other bits than its checkpoint of epoch "
                f"{kept.epoch} has (relative difference {apart:.2g}): it was not trained in the plain way (expected "
                "`optimizer_state: true` in its design), or on another machine, or the task is another one"
            )


def _check_recipe(checkpoint: Checkpoint, course: Course) -> None:
    """Raise TaskError for a checkpoint after another number of steps, or at another learning rate, than the recipe's."""
    step = checkpoint.epoch * course.steps_per_epoch
    rate = course.rates[max(step - 1, 0)] if step <= len(course.rates) else None
    if checkpoint.step != step or checkpoint.learning_rate != rate:
        raise TaskError(
            f"the checkpoint of epoch {checkpoint.epoch} was kept after step {checkpoint.step} at learning rate "
            f"{checkpoint.learning_rate:g}; by the task's recipe that is step {step}"
            + (", beyond its end" if rate is None else f" at learning rate {rate:g}")
            + ": it was trained by another recipe"
        )


def _is_whole(checkpoint: Checkpoint, recipe: Recipe) -> bool:
    """Whether the next step depends on nothing else."""
    stateless = recipe.optimizer == "sgd" and not recipe.momentum and recipe.ema is None
    return stateless or checkpoint.optimizer is not None


def _moment_of(checkpoint: Checkpoint) -> Moment:
    return Moment(checkpoint.step, checkpoint.state, checkpoint.optimizer or {})


def _difference(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the norm of the difference over the norm of what was kept, over all floating values together."""
    floating = [(one.double(), other.double()) for one, other in pairs if one.is_floating_point()]
    apart = sum(float((one - other).square().sum()) for one, other in floating)
    size = sum(float(other.square().sum()) for _, other in floating)
    return (apart / size) ** 0.5 if size else float("inf")
