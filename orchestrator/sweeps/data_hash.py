"""A hash that is another one when a task's data are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.task_hooks import fingerprint_of

if TYPE_CHECKING:
    from workers.task import DifferentiableTask, Source, Task

LOOKED_AT = 64
"""Items of a data set that are hashed: reading all of a large one would cost more than the sweep's first pack."""
ROWS = 4096
"""Rows of an array on disk that are read at once."""
SPLITS: dict[str, Source] = {"train": "train", "query": "task"}
"""What attributes of a differentiable task are called, and whose positions theirs are."""


def data_hash(task: Task | DifferentiableTask) -> str:
    """Hash every tensor that is an attribute of the task, by name, weights too, and what it tells of itself.

    Of a differentiable task its inputs and targets in any nesting, arrays on disk whole; of a data set, and of batches that a
    task reads for its own training, the length and some examples. Empty for a black box that holds no tensor and tells nothing.
    """
    from torch import Tensor

    from workers.task import DifferentiableTask, trains_itself

    fingerprint = fingerprint_of(task)
    held = {name: value for name, value in getattr(task, "__dict__", {}).items() if isinstance(value, Tensor)}
    if isinstance(task, DifferentiableTask):
        held |= _named(task)
    elif trains_itself(task):
        held |= _some_examples(task, ("train", "task"))
    if not held and not fingerprint:
        return ""
    digest = hashlib.sha256(fingerprint.encode())
    for name, leaf in sorted(held.items()):
        digest.update(f"{name} {leaf.dtype} {tuple(leaf.shape)}".encode())
        for part in _rows(leaf):
            digest.update(part)
    return digest.hexdigest()[:16]


def _named(task: DifferentiableTask) -> dict[str, Any]:
    """Return what a differentiable task is trained and measured on, by name; the attributes may be properties."""
    from workers.data.nested import leaves

    found: dict[str, Any] = {} if task.train_weights is None else {"train_weights": task.train_weights}
    for split, source in SPLITS.items():
        if getattr(task, f"{split}_data") is not None:
            found |= _some_examples(task, (source,))
            continue
        for name in (f"{split}_inputs", f"{split}_targets"):
            found |= dict(leaves(getattr(task, name), name))
    return found


def _some_examples(task: Task | DifferentiableTask, sources: Sequence[Source]) -> dict[str, Any]:
    """Return examples that are spread over all, and how many there are."""
    import torch

    from workers.data.nested import leaves
    from workers.own_training import gradient_task

    seen = gradient_task(task)
    assert seen is not None
    found: dict[str, Any] = {}
    for source in sources:
        examples = seen.examples(source)
        count = len(examples)
        chosen = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(np.int64))
        found |= dict(leaves(examples.read(torch.from_numpy(chosen)), f"{source} of {count}"))
    return found


def _rows(leaf: Any) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a tensor at once, of an array some rows at a time."""
    from torch import Tensor, uint8

    if isinstance(leaf, Tensor):
        yield leaf.detach().cpu().contiguous().flatten().view(uint8).numpy().data
        return
    for start in range(0, len(leaf), ROWS):
        yield np.ascontiguousarray(leaf[start : start + ROWS]).tobytes()
