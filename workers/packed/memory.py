"""How many models a device's memory holds in lockstep: measured on one model's step, with a margin."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from workers import training
from workers.precision import DTYPES
from workers.streams import build_module
from workers.task import DifferentiableTask

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
    x = training.cast(task.train_inputs[: recipe.batch_size], DTYPES[recipe.precision])
    y = training.cast(task.train_targets[: recipe.batch_size], DTYPES[recipe.precision])
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        task.loss(module.train()(x), y).mean()
    moments = 2 if recipe.optimizer != "sgd" else 1
    state = (3 + moments) * _bytes_of(list(module.parameters())) + 2 * _bytes_of(list(module.buffers()))
    return int(state + _MARGIN * (sum(kept.values()) + _bytes_of([x])))


def _bytes_of(tensors: list[Tensor] | list[nn.Parameter]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def available_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, or what this process may still allocate on the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _meminfo()
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else min(free, max(0, limit - used))


def _meminfo() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")


def _number(path: Path) -> int | None:
    """Return the number in a control group's file; None where there is no such limit."""
    text = path.read_text().strip() if path.exists() else "max"
    return None if text == "max" else int(text)
