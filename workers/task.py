"""The task contract: what a user brings.

Level one, black box: an object with `n`, `t`, `train` and `measure` (`Task`). Any training code will do.
Level two, differentiable: a subclass of `DifferentiableTask` (mostly `Classification` or `Regression`): tensors, a module
factory and a recipe. The worker trains it, alone or in packs, and every gradient-based estimator works.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from workers import measures
from workers.errors import TaskError, near
from workers.recipe import Recipe
from workers.runs import Queries

if TYPE_CHECKING:
    from torch import Tensor, nn

    from workers.measures import Measure


@runtime_checkable
class Task(Protocol):
    """The black-box contract. Everything else that a task may offer is listed in docs/your-own-task.md."""

    n: int
    """Number of training examples."""
    t: int
    """Number of queries."""

    def train(self, subset: NDArray[np.int64], seed: int) -> Any:
        """Train on the examples `subset` (ascending indices), all randomness from `seed` (0 <= seed < 2**32)."""

    def measure(self, model: Any) -> Mapping[str, NDArray[np.floating[Any]]]:
        """Return, for every measure the task knows, one finite number a query: (t,)."""


class DifferentiableTask(ABC):
    """A task made of tensors, a PyTorch module and a recipe.

    A subclass sets the five attributes in `__init__` and implements `module`; the training itself is ours.
    """

    recipe: Recipe
    train_inputs: Tensor
    """(n, ...); floating inputs are cast to the recipe's precision, integer ones (tokens) are left alone."""
    train_targets: Tensor
    """(n,) or (n, ...)."""
    query_inputs: Tensor
    """(t, ...)."""
    query_targets: Tensor
    """(t,) or (t, ...)."""
    train_weights: Tensor | None = None
    """(n,) factors on the examples' losses, or None for ones."""

    @property
    def n(self) -> int:
        """Number of training examples."""
        return len(self.train_inputs)

    @property
    def t(self) -> int:
        """Number of queries."""
        return len(self.query_inputs)

    @abstractmethod
    def module(self) -> nn.Module:
        """Return a new module, initialized from torch's global random state (which the trainer seeds)."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the training loss of every example, (b,); the trainer minimizes its mean over the batch."""

    @abstractmethod
    def measurements(self) -> Mapping[str, Measure]:
        """Return the measures by name; each maps (outputs, targets) to (b,) and is differentiable where that exists."""

    def measurement(self, name: str) -> Measure:
        """Return one measure. Raises TaskError for an unknown name."""
        known = self.measurements()
        if name not in known:
            raise TaskError(f"measure {name!r} is not one of this task's: {near(name, list(known))}")
        return known[name]

    def representation(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Return the features (b, d) that enter the module's last Linear layer."""
        from torch import nn

        linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise TaskError(
                f"{type(self).__name__}.module() has no Linear layer: override representation(module, inputs)"
            )
        seen: list[Tensor] = []
        handle = linear[-1].register_forward_pre_hook(lambda _layer, args: seen.append(args[0]))
        try:
            module(inputs)
        finally:
            handle.remove()
        return seen[0].flatten(1)

    def groups(self) -> Mapping[str, NDArray[np.int64]]:
        """Return the ways to group the training examples (leave_group_out): name -> (n,) group ids."""
        return {}

    def examples(self, queries: Queries) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of the chosen queries."""
        import torch

        inputs, targets = (
            (self.train_inputs, self.train_targets)
            if queries.source == "train"
            else (self.query_inputs, self.query_targets)
        )
        where = torch.from_numpy(queries.take(len(inputs)))
        return inputs[where], targets[where]


class Classification(DifferentiableTask):
    """Cross-entropy on class indices (int64 targets); measures margin, hard_margin, loss, probability, correct."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of every example, with the recipe's label smoothing."""
        from torch.nn import functional as F

        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=self.recipe.label_smoothing)

    def measurements(self) -> Mapping[str, Measure]:
        """Return the classification measures."""
        return measures.CLASSIFICATION

    def groups(self) -> Mapping[str, NDArray[np.int64]]:
        """Group by class."""
        return {"label": self.train_targets.numpy().astype(np.int64)}


class Regression(DifferentiableTask):
    """Squared error on one real target; measures squared_error (also named loss) and prediction."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared error of every example."""
        return measures.squared_error(outputs, targets)

    def measurements(self) -> Mapping[str, Measure]:
        """Return the regression measures."""
        return measures.REGRESSION
