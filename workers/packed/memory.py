"""How many models a device's memory holds in lockstep: measured on one model's step, with a margin."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.data.nested import tensors
from workers.machine import available_bytes
from workers.randomness.streams import build_module
from workers.task import DifferentiableTask
from workers.training.precision import DTYPES

_CUDA_SHARE = 0.8
_CPU_SHARE = 0.25
"""Of what is free: a machine's workers share its memory, and the data set is in it too."""
_MARGIN = 2.0
"""Gradients of activations live beside the activations; so do the temporaries of an operation."""


def largest_width(task: DifferentiableTask, device: torch.device) -> int:
    """Return how many models fit on the device in lockstep, at least 1."""
    share = _CUDA_SHARE if device.type == "cuda" else _CPU_SHARE
    return max(1, int(share * available_bytes(device) / bytes_per_model(task)))


def bytes_per_model(task: DifferentiableTask) -> int:
    """Return the bytes that one more model in lockstep takes: state, gradients, and what its backward pass keeps."""
    recipe = task.recipe
    module, _ = build_module(task.module, 0, DTYPES[recipe.precision])
    batch = torch.arange(min(recipe.batch_size, task.n))
    x, y = task.examples("train").to(DTYPES[recipe.precision]).read(batch)
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        task.loss(task.call(module.train(), x), y).mean()
    moments = 2 if recipe.optimizer != "sgd" else 1
    beside = (recipe.ema is not None) + (recipe.accumulate > 1)
    state = (3 + moments + beside) * _bytes_of(list(module.parameters())) + 2 * _bytes_of(list(module.buffers()))
    return int(state + _MARGIN * (sum(kept.values()) + _bytes_of(tensors(x))))


def _bytes_of(tensors: list[Tensor] | list[nn.Parameter]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; the CPU's allocator says so only by its message."""
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )
