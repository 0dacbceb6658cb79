"""Which examples a run's batches hold, in which order, how much each of them weighs, and after which the optimizer steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.errors import TaskError
from workers.randomness.shuffle import Shuffler
from workers.recipe import Recipe
from workers.runs import Run
from workers.task import DifferentiableTask


class Portion(NamedTuple):
    """Examples that go through the model together."""

    examples: Tensor
    """Their indices, (b,) int64."""
    weights: Tensor | None
    """Their weights, (b,) float64; None where all are 1."""
    share: float
    """Of its step's examples: the factor on the batch's mean loss in the step's."""
    ends_step: bool
    """Whether the optimizer steps after it."""


class Batches:
    """The batches of one run. The loss of a step is the mean over its places of loss times weight.

    With `order: shared` they are those of the full set for the run's seed. A left-out example keeps its place, so that what is
    drawn by place (dropout, augmentation) is the same for all others, and weighs 0; what stands at the place is an example of the
    run, because 0 times what the left-out example leads to is not 0 where that is not finite.
    """

    def __init__(self, task: DifferentiableTask, run: Run, shuffler: Shuffler):
        """Raises TaskError for weights of the run that are none, and where the recipe leaves no batch."""
        self._shuffler, self._recipe = shuffler, task.recipe
        self._by_weight = run.normalize == "weight"
        self.shared = run.order == "shared"
        self._drawn = np.arange(task.n, dtype=np.int64) if self.shared else run.subset
        self._weights = _weights_of(task, run)
        self._recipe.check_places(len(self._drawn))
        self._stand_in = 0
        if self.shared and self._weights is not None:
            present = np.flatnonzero(self._weights)
            if not len(present):
                raise TaskError(f"run {run.row}: no example has a weight above 0; at least one must be trained on")
            self._stand_in = int(present[0])

    @property
    def size(self) -> int:
        """Places of an epoch: what learning rates and steps are counted by."""
        return self._recipe.places_per_epoch(len(self._drawn))

    @property
    def count(self) -> int:
        """Batches of the whole training."""
        return self._recipe.epochs * self._recipe.batches_per_epoch(self.size)

    @property
    def trained_on(self) -> NDArray[np.int64]:
        """The examples that have a weight, ascending; `drop_last` leaves out others in every epoch, and none of these."""
        if self._weights is None:
            return self._drawn
        chosen: NDArray[np.int64] = self._drawn[self._weights[self._drawn] != 0]
        return chosen

    @property
    def weighted(self) -> bool:
        """Whether places have weights; without them all weigh 1."""
        return self._weights is not None

    def orders(self, epochs: int) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        """Return the examples of the next epochs (epochs, size), and their weights, of the same shape, unless all are 1."""
        orders = np.ascontiguousarray(self._shuffler.orders(self._drawn, epochs)[:, : self.size])
        if self._weights is None:
            return orders, None
        weights: NDArray[np.float64] = self._weights[orders]
        if self.shared:
            orders[weights == 0] = self._stand_in
        if self._by_weight:
            _divide_by_weight(weights, self._recipe.batch_size * self._recipe.accumulate)
        return orders, weights

    def epoch(self) -> list[Portion]:
        """Return the batches of the next epoch."""
        orders, weights = self.orders(1)
        held = None if weights is None else torch.from_numpy(weights[0])
        return cut(torch.from_numpy(orders[0]), held, self._recipe)

    def skip(self, epochs: int) -> None:
        """Go past so many epochs."""
        self._shuffler.skip(len(self._drawn), epochs)

    def present(self, weights: Tensor | None) -> Tensor:
        """Return which places of a batch hold examples that are there (b,), by their weights; a scalar True where all do."""
        return torch.ones((), dtype=torch.bool) if weights is None or not self.shared else weights != 0


def cut(order: Tensor, weights: Tensor | None, recipe: Recipe) -> list[Portion]:
    """Cut an epoch's order (m,) and weights into batches of `batch_size`, `accumulate` of them a step.

    No step is shared by two epochs: the last batch and the last step take what is left. The shares of a step's batches sum to 1,
    so that its gradient is that of the mean loss over all of its places.
    """
    found: list[Portion] = []
    step = recipe.batch_size * recipe.accumulate
    for start in range(0, len(order), step):
        end = min(start + step, len(order))
        for first in range(start, end, recipe.batch_size):
            batch = slice(first, min(first + recipe.batch_size, end))
            share = (batch.stop - batch.start) / (end - start)
            found.append(Portion(order[batch], None if weights is None else weights[batch], share, batch.stop == end))
    return found


def _weights_of(task: DifferentiableTask, run: Run) -> NDArray[np.float64] | None:
    """Return the weight of every training example (n,): the task's, times the run's, with `order: shared` 0 outside its subset.

    None where all weigh 1. Raises TaskError for weights of the run that are none.
    """
    if task.train_weights is None and run.weights is None and run.order == "own":
        return None
    weights = np.ones(task.n) if task.train_weights is None else task.train_weights.detach().cpu().double().numpy()
    if run.weights is not None:
        own = np.asarray(run.weights, dtype=np.float64)
        if own.shape != run.subset.shape or not (np.isfinite(own).all() and (own >= 0).all()):
            raise TaskError(
                f"run {run.row}: its weights must be finite numbers >= 0, one for each of its {len(run.subset)} examples"
            )
        weights = weights.copy()
        weights[run.subset] *= own
    if run.order == "shared":
        present = np.zeros(task.n, dtype=bool)
        present[run.subset] = True
        weights = np.where(present, weights, 0)
    return weights


def _divide_by_weight(weights: NDArray[np.float64], size: int) -> None:
    """Scale the weights (epochs, m) of every step of `size` places, in place, so that their mean is 1; all zeros stay zeros."""
    for start in range(0, weights.shape[1], size):
        step = weights[:, start : start + size]
        total = step.sum(axis=1, keepdims=True)
        step *= np.divide(step.shape[1], total, out=np.zeros_like(total), where=total != 0)
