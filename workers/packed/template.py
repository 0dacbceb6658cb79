"""One module of a task, called with the parameters of every model in lockstep, and what is known of it beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from workers.data.examples import Readable
from workers.data.nested import Nested
from workers.errors import TaskError
from workers.randomness.functional_dropout import KeyedCalls
from workers.randomness.streams import build_module
from workers.task import DifferentiableTask
from workers.training.precision import DTYPES, normalize_in_full
from workers.training.present_norm import exchange_norms

State = Mapping[str, Tensor]


class Template:
    """The module that stands for all. It is built before a step is compiled: inside a compiled step no module can be."""

    def __init__(self, task: DifferentiableTask, examples: Readable, device: torch.device):
        dtype = DTYPES[task.recipe.precision]
        self.module, dropouts = build_module(task.module, 0, dtype)
        norms = exchange_norms(self.module)
        normalize_in_full(task.recipe, self.module.to(device))
        self._caller = _Caller(self.module, task)
        self.dropouts = _names_of(self.module, dropouts, "key")
        """Names of its dropout layers' key buffers."""
        self.norms = _names_of(self.module, norms, "present")
        """Names of its batch normalizations' buffers of present examples."""
        self.own_names = _own_names(self.module)
        """For every name of its state the one under which it is stacked: tied weights have several names."""
        self.draws, self.unused = _look_at_a_step(task, examples, device)
        """Whether a forward pass draws masks by functions, beside its dropout layers; parameters that no gradient reaches."""

    def __call__(self, states: Sequence[State], inputs: Nested) -> Nested:
        """Return what the module makes of inputs with a model's parameters and buffers."""
        held = {f"module.{name}": value for state in states for name, value in state.items()}
        return functional_call(self._caller, held, (inputs,))


class _Caller(nn.Module):
    """The task's module, called as the task calls it, whatever structure its inputs have."""

    def __init__(self, module: nn.Module, task: DifferentiableTask):
        super().__init__()
        self.module, self._task = module, task

    def forward(self, inputs: Nested) -> Nested:
        """Return what the module makes of the inputs."""
        return self._task.call(self.module, inputs)


def _look_at_a_step(task: DifferentiableTask, examples: Readable, device: torch.device) -> tuple[bool, frozenset[str]]:
    """Take one step on a batch; return whether functions draw masks in it, and which parameters have no part in it.

    Those stay as they are, as PyTorch's optimizers leave them. A step that fails here fails in training, which says why.
    """
    module, _ = build_module(task.module, 0, DTYPES[task.recipe.precision])
    x, y = examples.read(torch.arange(min(task.recipe.batch_size, len(examples))))
    try:
        with KeyedCalls(torch.zeros((), dtype=torch.int32, device=device)) as calls:
            outputs = task.call(module.to(device).train(), x)
        task.loss(outputs, y).sum().backward()  # type: ignore[no-untyped-call]
    except TaskError:
        raise
    except Exception:
        return True, frozenset()
    return calls.count > 0, frozenset(name for name, value in module.named_parameters() if value.grad is None)


def _own_names(module: nn.Module) -> dict[str, str]:
    first: dict[int, str] = {}
    return {name: first.setdefault(id(value), name) for name, value in module.state_dict(keep_vars=True).items()}


def _names_of(module: nn.Module, layers: Sequence[nn.Module], buffer: str) -> list[str]:
    """Return the names of one buffer of some layers of the module, in the layers' order."""
    names = {id(part): name for name, part in module.named_modules()}
    return [f"{names[id(layer)]}.{buffer}".removeprefix(".") for layer in layers]
