"""Which examples a run's batches hold, in which order, and how much each of them weighs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.errors import TaskError
from workers.randomness.shuffle import Shuffler
from workers.runs import Run
from workers.task import DifferentiableTask


class Batches:
    """The batches of one run. The loss of a batch is the mean over its places of loss times weight.

    With `order: shared` they are those of the full set for the run's seed. A left-out example keeps its place, so that what is
    drawn by place (dropout, augmentation) is the same for all others, and weighs 0; what stands at the place is an example of the
    run, because 0 times what the left-out example leads to is not 0 where that is not finite.
    """

    def __init__(self, task: DifferentiableTask, run: Run, shuffler: Shuffler):
        """Raises TaskError for weights of the run that are none."""
        self._shuffler, self._batch_size = shuffler, task.recipe.batch_size
        self._by_weight = run.normalize == "weight"
        self.shared = run.order == "shared"
        self._drawn = np.arange(task.n, dtype=np.int64) if self.shared else run.subset
        self._weights = _weights_of(task, run)
        self._stand_in = 0
        if self.shared and self._weights is not None:
            present = np.flatnonzero(self._weights)
            if not len(present):
                raise TaskError(f"run {run.row}: no example has a weight above 0; at least one must be trained on")
            self._stand_in = int(present[0])

    @property
    def size(self) -> int:
        """Places of an epoch: what learning rates and steps are counted by."""
        return len(self._drawn)

    @property
    def weighted(self) -> bool:
        """Whether places have weights; without them all weigh 1."""
        return self._weights is not None

    def orders(self, epochs: int) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        """Return the examples of the next epochs (epochs, size), and their weights, of the same shape, unless all are 1."""
        orders = self._shuffler.orders(self._drawn, epochs)
        if self._weights is None:
            return orders, None
        weights: NDArray[np.float64] = self._weights[orders]
        if self.shared:
            orders[weights == 0] = self._stand_in
        if self._by_weight:
            _divide_by_weight(weights, self._batch_size)
        return orders, weights

    def present(self, weights: Tensor | None) -> Tensor:
        """Return which places of a batch hold examples that are there (b,), by their weights; a scalar True where all do."""
        return torch.ones((), dtype=torch.bool) if weights is None or not self.shared else weights != 0

    def epoch(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the examples (b,) of every batch of the next epoch, and their weights (b,) unless all are 1."""
        orders, weights = self.orders(1)
        batches = torch.split(torch.from_numpy(orders[0]).to(device), self._batch_size)
        if weights is None:
            yield from ((batch, None) for batch in batches)
        else:
            yield from zip(
                batches, torch.split(torch.from_numpy(weights[0]).to(device, dtype), self._batch_size), strict=True
            )


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


def _divide_by_weight(weights: NDArray[np.float64], batch_size: int) -> None:
    """Scale the weights (epochs, m) of every batch, in place, so that their mean is 1; a batch without weight stays without."""
    for start in range(0, weights.shape[1], batch_size):
        batch = weights[:, start : start + batch_size]
        total = batch.sum(axis=1, keepdims=True)
        batch *= np.divide(batch.shape[1], total, out=np.zeros_like(total), where=total != 0)
