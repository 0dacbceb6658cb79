"""A trained model as a function of its parameters, and the examples it is differentiated on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.random import SeedSequence
from torch import Tensor, nn
from torch.func import functional_call

from workers.data.examples import Arrays, Readable
from workers.data.nested import Nested
from workers.errors import ConfigError, DataError
from workers.name_patterns import matching
from workers.randomness.dropout import KeyedDropout
from workers.randomness.streams import build_module
from workers.training.batchable_attention import batchable_attention
from workers.training.precision import DTYPES

if TYPE_CHECKING:
    from workers.runs import Checkpoint, Queries
    from workers.task import GradientTask, Objective

Parameters = Mapping[str, Tensor]


def precision_of(task: GradientTask) -> torch.dtype:
    """Return the dtype that the task is trained in; that of its module's parameters where its recipe is not known."""
    if task.recipe is None:
        return next((one.dtype for one in task.module().parameters()), torch.get_default_dtype())
    return DTYPES[task.recipe.precision]


class Model:
    """The task's module at one checkpoint, in eval mode: dropout is off, BatchNorm uses the checkpoint's statistics.

    `parameters` are the trained parameters by name, in the module's order, detached; frozen ones, those that match none of
    `patterns` and buffers stay in the module. `p` is their number of elements. Raises DataError when the checkpoint does not
    fit the module, ConfigError for a pattern that no trained parameter matches.

    With a `mask` it is a thinned network: units of its dropout layers are dropped as in training, the same ones for all
    examples, drawn from that seed. Raises ConfigError for a module without such layers.
    """

    def __init__(
        self,
        task: GradientTask,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        patterns: Sequence[str] = ("*",),
        mask: SeedSequence | None = None,
    ):
        self.module, dropouts = build_module(task.module, 0, dtype)
        try:
            self.module.load_state_dict(checkpoint.state)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise DataError(
                f"checkpoint of epoch {checkpoint.epoch} does not fit the task's module: {reason}"
            ) from error
        self.module.eval()
        if mask is not None:
            _thin(dropouts, mask)
        trained = {name: value for name, value in self.module.named_parameters() if value.requires_grad}
        chosen = matching(list(trained), patterns, "parameters")
        self.parameters = {name: value.detach() for name, value in trained.items() if name in chosen}
        self.module.requires_grad_(False)  # its parameters are given with every call
        self.dtype = dtype
        self.p = sum(value.numel() for value in self.parameters.values())
        self.batches = True
        """Whether gradients of many examples can be taken at once; who finds out that they cannot says so here."""
        self._holder = _Holder(self.module)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(iter(self.parameters.values())).device

    def value(self, parameters: Parameters, objective: Objective, batch: Nested) -> Tensor:
        """Return objective(module, batch) (b,) with these parameters in the module."""
        held = {f"module.{name}": value for name, value in parameters.items()}
        with batchable_attention():
            found: Tensor = functional_call(self._holder, held, (objective, batch))
        return found

    def restricted(self, names: Sequence[str]) -> Model:
        """Return the same model, of which only these of the parameters are differentiated."""
        other = copy.copy(self)
        other.parameters = {name: self.parameters[name] for name in names}
        other.p = sum(value.numel() for value in other.parameters.values())
        return other

    def flatten(self, tree: Parameters) -> Tensor:
        """Return (..., p) from values by parameter name, each with the same leading dimensions before its shape."""
        parts = []
        for name, parameter in self.parameters.items():
            value = tree[name]
            leading = value.shape[: value.dim() - parameter.dim()]
            parts.append(value.reshape(*leading, parameter.numel()))
        return torch.cat(parts, dim=-1)

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views of `flat` (..., p) by parameter name, each of shape (..., *shape of the parameter)."""
        sizes = [parameter.numel() for parameter in self.parameters.values()]
        parts = zip(self.parameters.items(), torch.split(flat, sizes, dim=-1), strict=True)
        return {name: part.reshape(*flat.shape[:-1], *parameter.shape) for (name, parameter), part in parts}


def _thin(dropouts: Sequence[KeyedDropout], mask: SeedSequence) -> None:
    """Drop units of every dropout layer, the same ones for all examples. Raises ConfigError where there are none to drop."""
    if not any(layer.p > 0 for layer in dropouts):
        raise ConfigError(
            "dropout: masks are of nn.Dropout layers with p above 0, and the module has none: expected dropout: null"
        )
    for layer, number in zip(dropouts, mask.generate_state(len(dropouts), np.uint32), strict=True):
        layer.key.copy_(torch.tensor(int(number) - 2**31, dtype=torch.int32))
        layer.shared = True
        layer.train()


class _Holder(nn.Module):
    """Lets a function of a module be called as a module: its parameters can then be given with the call."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, objective: Objective, batch: Nested) -> Tensor:
        """Return objective(module, batch)."""
        return objective(self.module, batch)


@dataclass(frozen=True)
class Examples:
    """Some examples of a task, read when they are looked at, and the factors on their losses."""

    readable: Readable
    """What they are read from, in the precision that is worked in."""
    indices: Tensor
    """(b,) int64, which of them."""
    weights: Tensor | None = None
    """(b,), or None for ones."""

    @classmethod
    def training(cls, task: GradientTask, dtype: torch.dtype) -> Examples:
        """Return the n training examples."""
        weights = None if task.train_weights is None else task.train_weights.to(dtype)
        return cls(task.examples("train").to(dtype), torch.arange(task.n), weights)

    @classmethod
    def queried(cls, task: GradientTask, queries: Queries, dtype: torch.dtype) -> Examples:
        """Return the t queries; a measure is never weighted."""
        readable = task.examples(queries.source).to(dtype)
        return cls(readable, torch.from_numpy(queries.take(len(readable))))

    @classmethod
    def of(cls, batch: Nested, count: int) -> Examples:
        """Return the examples of a batch in memory."""
        return cls(Arrays(batch), torch.arange(count))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, where: slice) -> Examples:
        return replace(self, indices=self.indices[where], weights=None if self.weights is None else self.weights[where])

    def batch(self) -> Nested:
        """Read them: (b, ...) at every leaf."""
        return self.readable.read(self.indices)
