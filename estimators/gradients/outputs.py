"""What a module returns, whatever its structure, as one vector an example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from workers.data.nested import Nested
from workers.errors import TaskError


def flatten(outputs: Nested) -> Tensor:
    """Return (b, c): every floating tensor among the outputs, flattened and side by side. Raises TaskError for none."""
    parts = [leaf.flatten(1) if leaf.ndim > 1 else leaf.unsqueeze(1) for leaf in _numbers(tree_flatten(outputs)[0])]
    if not parts:
        raise TaskError("the module returns no floating tensor, so there is nothing to differentiate")
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def unflatten(flat: Tensor, like: Nested) -> Nested:
    """Return (b, c) in the structure of `like`, whose tensors may have another number of examples."""
    leaves, structure = tree_flatten(like)
    sizes = [leaf[0].numel() for leaf in _numbers(leaves)]
    parts = iter(torch.split(flat, sizes, dim=1))
    shaped = [next(parts).reshape(len(flat), *leaf.shape[1:]) if _is_number(leaf) else leaf for leaf in leaves]
    return tree_unflatten(shaped, structure)


def _numbers(leaves: list[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if _is_number(leaf)]


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()
