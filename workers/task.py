"""The task contract: what a user brings.

Level one, black box: an object with `n`, `t`, `train` and `measure` (`Task`). Any training code will do.
Level two, differentiable: a subclass of `DifferentiableTask` (mostly `Classification` or `Regression`): examples, a module
factory and a recipe. The worker trains it, alone or in packs, and every gradient-based estimator works.
Level three, own training: any training code that returns a module, with a loss and measures on batches (workers/own_training.py).

What gradient-based estimators see of levels two and three is a `GradientTask`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from workers import measures
from workers.data.nested import Nested, length
from workers.errors import TaskError, near
from workers.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from workers.data.examples import Batch, Readable
    from workers.measures import Measure

Source = Literal["task", "train"]
"""Whose position an index is: the task's own queries', or the training examples'."""
Objective: TypeAlias = "Callable[[nn.Module, Nested], Tensor]"
"""Maps a module and a batch to one number an example, (b,), differentiable in the module's parameters."""


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


class GradientTask(ABC):
    """What gradient-based estimators see of a task: batches, modules, and numbers that can be differentiated."""

    recipe: Recipe | None
    """How it is trained; None where nobody told."""
    train_weights: Tensor | None = None
    """(n,) factors on the examples' losses, or None for ones."""

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of training examples."""

    @property
    @abstractmethod
    def t(self) -> int:
        """Number of queries."""

    @abstractmethod
    def module(self) -> nn.Module:
        """Return a module of the kind that is trained, whatever its parameters are."""

    @abstractmethod
    def examples(self, source: Source) -> Readable:
        """Return the training examples or the task's own queries, to be read a batch at a time."""

    @abstractmethod
    def forward(self, module: nn.Module, batch: Nested) -> Nested:
        """Return what the module makes of a batch: a tensor (b, ...), or several."""

    @abstractmethod
    def criterion(self, outputs: Nested, batch: Nested) -> Tensor:
        """Return the training loss of every example, (b,), from what the module made of them."""

    @abstractmethod
    def objectives(self) -> Mapping[str, Objective]:
        """Return the measures by name."""

    @abstractmethod
    def features(self, module: nn.Module, batch: Nested) -> Tensor:
        """Return the representation (b, d) of every example."""

    def read_queries(self, path: Path) -> Nested:
        """Return new queries from a file, as a batch of the task's own: (q, ...) at every leaf.

        By default from an .npz whose arrays are the leaves of a batch by name, such as `inputs`, `inputs.tokens`, `targets`.
        Raises DataError for a file that cannot be read so.
        """
        from workers.data.new_queries import read_batch

        return read_batch(path, self.examples("task"))

    def sampled_output_gradients(self, outputs: Nested, batch: Nested, rng: np.random.Generator) -> Tensor | None:
        """Return random vectors (b, c), one an example, for the module's outputs (c numbers an example) of a batch.

        Their mean is 0, their covariance the Hessian of the loss in the outputs: the loss's gradient at a target that is drawn
        from the model's own prediction is one. None where the task has no such draw; it is then made of the Hessian itself,
        which takes c x c numbers an example. An example's draws must be as many whatever the batch.
        """
        return None

    def losses(self, module: nn.Module, batch: Nested) -> Tensor:
        """Return the training loss of every example, (b,)."""
        return self.criterion(self.forward(module, batch), batch)

    def objective(self, name: str) -> Objective:
        """Return one measure. Raises TaskError for an unknown name."""
        known = self.objectives()
        if name not in known:
            raise TaskError(f"measure {name!r} is not one of this task's: {near(name, list(known))}")
        return known[name]


def trains_itself(task: object) -> bool:
    """Whether a task, or a class of tasks, is one of level three: `train`, `batch` and `loss`, and no `measure`."""
    return all(callable(getattr(task, name, None)) for name in ("train", "batch", "loss")) and not hasattr(
        task, "measure"
    )


class DifferentiableTask(GradientTask):
    """A task made of examples, a PyTorch module and a recipe; the training itself is ours.

    A subclass sets `recipe` in `__init__`, and either four attributes of tensors or two data sets, and implements `module`.
    """

    recipe: Recipe
    train_inputs: Nested
    """(n, ...) at every leaf: a tensor, or tensors in a tuple, a named tuple or a dictionary; the module is called with it, with
    its parts, or with its items as keywords. Leaves may be arrays that lie on disk (`numpy.memmap`, Zarr): they are read a batch
    at a time. Floating numbers are cast to the recipe's precision, integers (tokens) are left alone."""
    train_targets: Nested
    """(n, ...) at every leaf."""
    query_inputs: Nested
    """(t, ...) at every leaf."""
    query_targets: Nested
    """(t, ...) at every leaf."""
    train_data: Any = None
    """Instead of inputs and targets: a map-style data set of n items, which `collate` makes a batch of."""
    query_data: Any = None
    """The same, of t items."""

    @property
    def n(self) -> int:
        """Number of training examples."""
        return length(self.train_inputs, "train_inputs") if self.train_data is None else self._count("train_data")

    @property
    def t(self) -> int:
        """Number of queries."""
        return length(self.query_inputs, "query_inputs") if self.query_data is None else self._count("query_data")

    @abstractmethod
    def module(self) -> nn.Module:
        """Return a new module, initialized from torch's global random state (which the trainer seeds)."""

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return the training loss of every example, (b,); the trainer minimizes its mean over the batch.

        `outputs` is what the module returned, `targets` the batch's: tensors, or nestings of them.
        """

    @abstractmethod
    def measurements(self) -> Mapping[str, Measure]:
        """Return the measures by name; each maps (outputs, targets) to (b,) and is differentiable where that exists."""

    def measurement(self, name: str) -> Measure:
        """Return one measure. Raises TaskError for an unknown name."""
        known = self.measurements()
        if name not in known:
            raise TaskError(f"measure {name!r} is not one of this task's: {near(name, list(known))}")
        return known[name]

    def elsewhere(self, measure: str) -> str:
        """Return how a measure that this task lacks can be had, as the end of a message; empty where nobody knows."""
        return ""

    def collate(self, items: list[Any]) -> tuple[Nested, Nested]:
        """Return (inputs, targets) of some items of a data set, as torch's DataLoader would: items are (input, target)."""
        from torch.utils.data import default_collate

        inputs, targets = default_collate(items)
        return inputs, targets

    def call(self, module: nn.Module, inputs: Nested) -> Any:
        """Return what the module returns for inputs: a tensor, the parts of a tuple, or keywords."""
        if isinstance(inputs, Mapping):
            return module(**inputs)
        return module(*inputs) if isinstance(inputs, tuple | list) else module(inputs)

    def representation(self, module: nn.Module, inputs: Nested) -> Tensor:
        """Return the features (b, d) that enter the module's last Linear layer."""
        return entering_last_linear(module, lambda: self.call(module, inputs), "representation(module, inputs)")

    def groups(self) -> Mapping[str, NDArray[np.int64]]:
        """Return the ways to group the training examples (leave_group_out): name -> (n,) group ids."""
        return {}

    def examples(self, source: Source) -> Readable:
        """Return the training examples or the task's own queries; batches are `Batch(inputs, targets)`."""
        from workers.data.examples import Arrays, Batch, Items

        split = "train" if source == "train" else "query"
        data = getattr(self, f"{split}_data")
        if data is None:
            return Arrays(Batch(getattr(self, f"{split}_inputs"), getattr(self, f"{split}_targets")))
        return Items(data, lambda items: Batch(*self.collate(items)), f"{split}_data", self._count(f"{split}_data"))

    def _count(self, name: str) -> int:
        """Return how many items a data set had when it was first asked; one of another length is refused when it is read."""
        data = getattr(self, name)
        held: tuple[object, int] = self.__dict__.get(f"_counted_{name}", (None, 0))
        asked, count = held
        if asked is not data:
            count = len(data)
            self.__dict__[f"_counted_{name}"] = (data, count)
        return count

    def forward(self, module: nn.Module, batch: Batch) -> Nested:
        """Return what the module makes of the batch's inputs."""
        return self.call(module, batch.inputs)

    def criterion(self, outputs: Nested, batch: Batch) -> Tensor:
        """Return the loss."""
        return self.loss(outputs, batch.targets)

    def objectives(self) -> Mapping[str, Objective]:
        """Return the measures as functions of a module and a batch."""
        return {name: self._objective(measure) for name, measure in self.measurements().items()}

    def _objective(self, measure: Measure) -> Objective:
        return lambda module, batch: measure(self.forward(module, batch), batch.targets)

    def features(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the representation."""
        return self.representation(module, batch.inputs)


def entering_last_linear(module: nn.Module, run: Callable[[], object], instead: str) -> Tensor:
    """Return what enters the module's last Linear layer, (b, d), while `run` is called.

    Raises TaskError, which asks for the method `instead`, where there is none or nothing enters it.
    """
    from torch import nn

    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise TaskError(f"the module has no Linear layer: override {instead}")
    seen: list[Tensor] = []
    handle = linear[-1].register_forward_pre_hook(lambda _layer, args: seen.append(args[0]))
    try:
        run()
    finally:
        handle.remove()
    if not seen:
        raise TaskError(f"nothing enters the module's last Linear layer: override {instead}")
    return seen[0].flatten(1)


class Classification(DifferentiableTask):
    """Cross-entropy on class indices (int64 targets); measures margin, hard_margin, loss, probability, correct."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of every example, with the recipe's label smoothing."""
        from torch.nn import functional as F

        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=self.recipe.label_smoothing)

    def sampled_output_gradients(self, outputs: Nested, batch: Nested, rng: np.random.Generator) -> Tensor | None:
        """Return softmax(outputs) minus a class drawn from it, as a unit vector; None for outputs that are no (b, classes)."""
        from torch import Tensor

        from workers.residuals import sampled_residuals

        return sampled_residuals(outputs, rng) if isinstance(outputs, Tensor) and outputs.ndim == 2 else None

    def measurements(self) -> Mapping[str, Measure]:
        """Return the classification measures."""
        return measures.CLASSIFICATION

    def groups(self) -> Mapping[str, NDArray[np.int64]]:
        """Group by class, where the targets are one tensor of class indices."""
        from torch import Tensor

        targets = None if self.train_data is not None else self.train_targets
        return {"label": targets.numpy().astype(np.int64)} if isinstance(targets, Tensor) and targets.ndim == 1 else {}


class Regression(DifferentiableTask):
    """Squared error on one real target; measures squared_error (also named loss) and prediction."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared error of every example."""
        return measures.squared_error(outputs, targets)

    def measurements(self) -> Mapping[str, Measure]:
        """Return the regression measures."""
        return measures.REGRESSION
