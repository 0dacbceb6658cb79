"""Level three of the task contract: the user's own training, and gradients of ours.

    class Mine:
        n: int                                                # training examples
        t: int                                                # queries
        def train(self, subset, seed, keep) -> nn.Module: ...  # any training code; keep(epoch, step, learning_rate, module)
        def batch(self, source, indices): ...                  # tensors in any nesting, (b, ...) each
        def loss(self, module, batch): ...                     # (b,), the training loss of every example
        measures = {name: f(module, batch) -> (b,)}

Retraining treats it as a black box. Gradient-based estimators see an `OwnTraining`, a task like any other.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.data.examples import Readable, placed
from workers.data.nested import Nested, cast
from workers.errors import DataError, TaskError, one_line
from workers.recipe import Recipe
from workers.runs import Checkpoint, Queries, Run
from workers.task import (
    DifferentiableTask,
    GradientTask,
    Objective,
    Source,
    Task,
    entering_last_linear,
    trains_itself,
)

Keep = Callable[[int, int, float, nn.Module], None]
"""keep(epochs completed, steps completed, learning rate of the last step, module) hands a checkpoint over."""


class TrainsItself(Protocol):
    """What the user's object has. Optional: `module()`, `representation(module, batch)`, `recipe`, and the hooks of any task."""

    n: int
    t: int
    measures: Mapping[str, Objective]

    def train(self, subset: NDArray[np.int64], seed: int, keep: Keep) -> nn.Module:
        """Train on the examples `subset` (ascending), all randomness from `seed`; return the module."""

    def batch(self, source: Source, indices: NDArray[np.int64]) -> Nested:
        """Return the training examples, or the task's own queries, at the indices (b,)."""

    def loss(self, module: nn.Module, batch: Nested) -> Tensor:
        """Return the training loss of every example, (b,)."""


def gradient_task(task: Task | DifferentiableTask) -> GradientTask | None:
    """Return what gradient-based estimators see of a task; None for a black box."""
    if isinstance(task, DifferentiableTask):
        return task
    return OwnTraining(task) if trains_itself(task) else None


class OwnTraining(GradientTask):
    """A task that trains itself, as estimators see it."""

    def __init__(self, task: Any):
        self.task: TrainsItself = task
        self.recipe: Recipe | None = getattr(task, "recipe", None)
        weights = getattr(task, "train_weights", None)
        self.train_weights = None if weights is None else torch.as_tensor(weights)
        self._module: nn.Module | None = None
        self._names: list[str] | None = None

    @property
    def n(self) -> int:
        """Number of training examples."""
        return int(self.task.n)

    @property
    def t(self) -> int:
        """Number of queries."""
        return int(self.task.t)

    def module(self) -> nn.Module:
        """Return a new module: the task's `module()`, or where it has none what its training begins with or ends with.

        Without it the first examples are trained on, until a checkpoint is handed over or the training ends.
        """
        import copy

        if (make := getattr(self.task, "module", None)) is not None:
            module = make()
        else:
            self._module = self._module if self._module is not None else _first_module(self.task)
            module = copy.deepcopy(self._module)
        return _checked(module, "module()")

    def examples(self, source: Source) -> Readable:
        """Return what the task's `batch` reads."""
        return OwnBatches(self.task, source, self.n if source == "train" else self.t)

    def forward(self, module: nn.Module, batch: Nested) -> Nested:
        """Return what the module returns while the task's loss of the batch is computed.

        Raises TaskError where it is not called exactly once: the loss is then no function of outputs.
        """
        seen: list[Nested] = []
        handle = module.register_forward_hook(lambda _module, _args, outputs: seen.append(outputs))
        try:
            self.task.loss(module, batch)
        finally:
            handle.remove()
        if len(seen) != 1:
            raise TaskError(
                f"loss(module, batch) calls the module {len(seen)} times; what needs the loss as a function of the module's "
                "outputs (a Gauss-Newton matrix) needs exactly one call"
            )
        return seen[0]

    def criterion(self, outputs: Nested, batch: Nested) -> Tensor:
        """Return the task's loss of a batch on which the module has these outputs."""
        return self.task.loss(Answer(outputs), batch)

    def losses(self, module: nn.Module, batch: Nested) -> Tensor:
        """Return the task's loss."""
        return self.task.loss(module, batch)

    def objectives(self) -> Mapping[str, Objective]:
        """Return the task's measures."""
        return self.task.measures

    def features(self, module: nn.Module, batch: Nested) -> Tensor:
        """Return the task's `representation`, or what enters the last Linear layer while its loss is computed."""
        own = getattr(self.task, "representation", None)
        if own is not None:
            return own(module, batch)  # type: ignore[no-any-return]
        return entering_last_linear(module, lambda: self.task.loss(module, batch), "representation(module, batch)")

    def train(self, run: Run) -> tuple[nn.Module, tuple[Checkpoint, ...]]:
        """Have the task train itself; return the module in evaluation mode, and the checkpoints that the run asks for.

        Python's, NumPy's and PyTorch's global generators begin at the run's seed. Of what `keep` is given, the epochs in
        `run.checkpoint_epochs` are kept; the last of these is the finished module, whatever was handed over under it.
        Raises TaskError for a module that is none or has other parameters than the first one, and for an epoch never handed over.
        """
        kept: dict[int, Checkpoint] = {}
        last = (0, math.nan)

        def keep(epoch: int, step: int, learning_rate: float, module: nn.Module) -> None:
            nonlocal last
            last = int(step), float(learning_rate)
            if epoch in run.checkpoint_epochs:
                kept[int(epoch)] = Checkpoint(int(epoch), *last, _state(module))

        with seeded(run.seed):
            module = _checked(self.task.train(run.subset, run.seed, keep), "train(subset, seed, keep)")
        self._check_names(module)
        if run.checkpoint_epochs:
            end = max(run.checkpoint_epochs)
            missing = [epoch for epoch in run.checkpoint_epochs if epoch not in kept and epoch != end]
            if missing:
                raise TaskError(
                    f"train(subset, seed, keep) never called keep for epoch {missing[0]}, which the design keeps"
                )
            kept[end] = Checkpoint(end, *last, _state(module))
        return module.eval(), tuple(kept[epoch] for epoch in sorted(kept))

    @torch.no_grad()
    def measure(
        self, module: nn.Module, names: Sequence[str], queries: Queries, batch: int = 256
    ) -> dict[str, NDArray[np.float32]]:
        """Return the measures of a trained module, (t,) float32 each. Raises TaskError for one of another shape."""
        device = next((value.device for value in module.parameters()), torch.device("cpu"))
        examples = self.examples(queries.source)
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for indices in torch.split(torch.from_numpy(queries.take(len(examples))), batch):
            held = cast(examples.read(indices), None, device)
            for name in names:
                values = torch.as_tensor(self.objective(name)(module, held))
                if values.shape != indices.shape:
                    raise TaskError(
                        f"measure {name!r} must return one number an example, of shape (b,); "
                        f"for {len(indices)} examples it returned {tuple(values.shape)}"
                    )
                parts[name].append(values)
        return {name: torch.cat(values).float().cpu().numpy() for name, values in parts.items()}

    def _check_names(self, module: nn.Module) -> None:
        """Remember the names of the first module's parameters and buffers, and refuse others."""
        names = list(module.state_dict())
        self._names = self._names or names
        if names != self._names:
            other = sorted({*names} ^ {*self._names}) or ["their order"]
            raise TaskError(
                f"train(subset, seed, keep) returned a module with other parameters than before: {other[0]}"
            )


@dataclass(frozen=True)
class OwnBatches(Readable):
    """Examples that a task's own `batch(source, indices)` reads."""

    task: TrainsItself
    source: Source
    count: int
    dtype: torch.dtype | None = None
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Tensor) -> Nested:
        """Return the batch. Raises DataError for examples that cannot be read, TaskError for a batch that is none."""
        wanted, call = indices.flatten().cpu().numpy(), f"batch({self.source!r}, indices)"
        try:
            found = self.task.batch(self.source, wanted)
        except Exception as error:
            raise DataError(f"{call} fails for {_told(wanted)}: {one_line(error)}") from error
        return placed(found, indices, call, self.dtype, self.device)

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> OwnBatches:
        """Have every batch cast when it is read."""
        return replace(self, dtype=dtype, device=device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let all global generators begin at the seed, and go on afterwards as if nothing had been drawn."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


class Answer(nn.Module):
    """Stands for a module whose outputs are known."""

    def __init__(self, outputs: Nested):
        super().__init__()
        self._outputs = outputs

    def forward(self, *_args: object, **_kwargs: object) -> Nested:
        """Return the outputs, whatever it is called with."""
        return self._outputs


class _Begun(BaseException):
    """Ends a training at its first checkpoint."""


def _first_module(task: TrainsItself) -> nn.Module:
    """Return the module of a training on the first examples, at its first checkpoint or its end."""
    found: list[nn.Module] = []

    def keep(epoch: int, step: int, learning_rate: float, module: nn.Module) -> None:
        found.append(module)
        raise _Begun

    try:
        with seeded(0):
            found.append(_checked(task.train(np.arange(min(task.n, 64)), 0, keep), "train(subset, seed, keep)"))
    except _Begun:
        pass
    return found[0]


def _checked(module: object, call: str) -> nn.Module:
    if not isinstance(module, nn.Module):
        raise TaskError(f"{call} must return a torch.nn.Module, found {type(module).__name__}")
    return module


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def _told(indices: NDArray[np.int64]) -> str:
    few = ", ".join(map(str, indices[:3].tolist()))
    return (
        f"example {few}"
        if len(indices) == 1
        else f"{len(indices)} examples ({few}{', ...' if len(indices) > 3 else ''})"
    )
