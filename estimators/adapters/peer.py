"""What adapters share: which library they need, what no library of the kind takes, and a task as such libraries see it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from estimators.evidence import Evidence
from estimators.reference_estimator import ModelEffects, ReferenceEstimator
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import TensorDataset

    from estimators.gradients.functional_model import Examples
    from workers.task import DifferentiableTask, GradientTask


class PeerEstimator(ReferenceEstimator):
    """An estimator whose values another library computes. Signs and, where it has them, units are ours."""

    library: ClassVar[str]
    """The library's name: that of its extra, and of its package."""
    imported_as: ClassVar[str]
    """The module that it is imported as."""

    @classmethod
    def lacking(cls) -> tuple[str, str]:
        """Return what has to be installed, and how."""
        there = find_spec(cls.imported_as) is not None
        return ("", "") if there else (cls.library, f"pip install 'counterfactory[{cls.library}]'")

    def check(self, evidence: Evidence) -> None:
        """Refuse what the library cannot take, and what gradient-based estimators refuse."""
        task = evidence.differentiable()
        self.taken(task)
        super().check(evidence)

    def taken(self, task: GradientTask) -> DifferentiableTask:
        """Return the task, if it is one that such libraries take. Raises ConfigError, one line, for any other one."""
        import torch

        from workers.task import DifferentiableTask

        for option, default in (("parameters", ("*",)), ("dropout", None)):
            if getattr(self, option) != default:
                raise ConfigError(f"{self.name}: {option} is not for {self.library}, expected it to be left out")
        if not isinstance(task, DifferentiableTask):
            raise ConfigError(
                f"{self.name}: {self.library} is given no task that trains itself, expected one of level two"
            )
        if task.train_data is not None or task.query_data is not None:
            raise ConfigError(f"{self.name}: {self.library} is given tensors, found a data set with `collate`")
        for name in ("train_inputs", "train_targets", "query_inputs", "query_targets"):
            found = getattr(task, name)
            if not isinstance(found, torch.Tensor):
                raise ConfigError(
                    f"{self.name}: {self.library} is given tensors, found {name} of {type(found).__name__}"
                )
        if task.train_weights is not None:
            raise ConfigError(f"{self.name}: {self.library} knows no weights of examples, found train_weights")
        self._refuse_several_outputs(task)
        return task

    def _refuse_several_outputs(self, task: DifferentiableTask) -> None:
        import torch

        module = self.module_of(task)
        fixed = [name for name, value in module.named_parameters() if not value.requires_grad]
        if fixed:
            raise ConfigError(f"{self.name}: {self.library} differentiates all parameters, found {fixed[0]} held fixed")
        batch = task.examples("train").to(self.dtype(task)).read(torch.arange(1))
        with torch.no_grad():
            outputs = task.forward(module, batch)
        if not isinstance(outputs, torch.Tensor):
            raise ConfigError(
                f"{self.name}: {self.library} takes modules with one output, found {type(outputs).__name__}"
            )

    def module_of(self, task: GradientTask, checkpoint: Checkpoint | None = None) -> nn.Module:
        """Return a module of its own at a checkpoint (else as it is built), evaluating: libraries change what they are given."""
        module = task.module().to(self.dtype(task))
        if checkpoint is not None:
            module.load_state_dict(checkpoint.state)
        return module.eval()

    def dtype(self, task: GradientTask) -> torch.dtype:
        """Return float32: what these libraries are made for."""
        import torch

        return torch.float32

    def batch_of(self, p: int) -> int:
        """Return of how many examples gradients of p parameters take an eighth of the memory."""
        return max(1, self.budget // (32 * p))


class PeerEffects(ModelEffects):
    """What a library is given: data sets of (input, target), in the order of the examples."""

    @property
    def task(self) -> DifferentiableTask:
        """The task, which `check` has seen to be of level two."""
        from workers.task import DifferentiableTask

        task = self.material.task
        assert isinstance(task, DifferentiableTask)
        return task

    def data(self, examples: Examples) -> TensorDataset:
        """Return examples as PyTorch has them."""
        from torch.utils.data import TensorDataset

        batch = examples.batch()
        return TensorDataset(batch.inputs, batch.targets)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the training losses (b,)."""
        return self.task.loss(outputs, targets)

    def measured(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the measure (b,)."""
        return self.task.measurement(self.material.measure)(outputs, targets)


def version_of(library: str) -> str:
    """Return the library's name and version."""
    return f"{library} {version(library)}"


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep progress bars of a library off the terminal, where ours are drawn."""
    with redirect_stderr(io.StringIO()):
        yield
