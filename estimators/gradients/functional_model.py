"""A trained model as a function of its parameters, and the examples it is differentiated on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from workers.errors import DataError
from workers.randomness.streams import build_module
from workers.runs import Checkpoint, Queries
from workers.task import DifferentiableTask
from workers.training.precision import DTYPES, cast

Parameters = Mapping[str, Tensor]


def precision_of(task: DifferentiableTask) -> torch.dtype:
    """Return the dtype that the task is trained in."""
    return DTYPES[task.recipe.precision]


class Model:
    """The task's module at one checkpoint, in eval mode: dropout is off, BatchNorm uses the checkpoint's statistics.

    `parameters` are the trained parameters by name, in the module's order, detached; frozen ones and buffers stay in
    the module. `p` is their number of elements. Raises DataError when the checkpoint does not fit the module.
    """

    def __init__(self, task: DifferentiableTask, checkpoint: Checkpoint, dtype: torch.dtype):
        self.module, _ = build_module(task.module, 0, dtype)
        try:
            self.module.load_state_dict(checkpoint.state)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise DataError(
                f"checkpoint of epoch {checkpoint.epoch} does not fit the task's module: {reason}"
            ) from error
        self.module.eval()
        trained = {name: value for name, value in self.module.named_parameters() if value.requires_grad}
        self.parameters = {name: value.detach() for name, value in trained.items()}
        self.dtype = dtype
        self.p = sum(value.numel() for value in self.parameters.values())

    def __call__(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Return the outputs (b, ...) for `inputs` (b, ...) with these parameters."""
        outputs: Tensor = functional_call(self.module, dict(parameters), (inputs,))
        return outputs

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


@dataclass(frozen=True)
class Examples:
    """Inputs and targets, and the factors on their losses."""

    inputs: Tensor
    """(b, ...)."""
    targets: Tensor
    """(b, ...)."""
    weights: Tensor | None = None
    """(b,), or None for ones."""

    @classmethod
    def training(cls, task: DifferentiableTask, dtype: torch.dtype) -> Examples:
        """Return the n training examples."""
        weights = None if task.train_weights is None else task.train_weights.to(dtype)
        return cls(cast(task.train_inputs, dtype), cast(task.train_targets, dtype), weights)

    @classmethod
    def queried(cls, task: DifferentiableTask, queries: Queries, dtype: torch.dtype) -> Examples:
        """Return the t queries; a measure is never weighted."""
        inputs, targets = task.examples(queries)
        return cls(cast(inputs, dtype), cast(targets, dtype))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, where: slice) -> Examples:
        weights = None if self.weights is None else self.weights[where]
        return Examples(self.inputs[where], self.targets[where], weights)
