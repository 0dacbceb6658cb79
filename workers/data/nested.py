"""Batches of any structure: tensors in tuples, named tuples, lists and dictionaries, one inside the other.

What is at the leaves has a first dimension, the examples: tensors in a batch, and tensors or arrays in what batches are taken of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from workers.errors import TaskError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Nested: TypeAlias = Any
"""A leaf, or a tuple, named tuple, list or mapping of what is nested; None stands for a part that is not there."""


def mapped(change: Callable[[Any], Any], value: Nested) -> Nested:
    """Return the same structure with `change` of every leaf; a mapping of any class becomes a dictionary."""
    if isinstance(value, tuple | list):
        parts = [mapped(change, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, Mapping):
        return {key: mapped(change, part) for key, part in value.items()}
    return None if value is None else change(value)


def leaves(value: Nested, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf with the keys that lead to it (`name.key.0`), in order."""
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, tuple | list):
        fields: Any = getattr(value, "_fields", range(len(value)))
        parts = list(zip(fields, value, strict=True))
    else:
        if value is not None:
            yield name, value
        return
    for key, part in parts:
        yield from leaves(part, f"{name}.{key}".removeprefix("."))


def tensors(value: Nested) -> list[Any]:
    """Return the leaves."""
    return [leaf for _, leaf in leaves(value)]


def length(value: Nested, name: str) -> int:
    """Return how many examples all leaves have. Raises TaskError where they have none, or not the same number."""
    counts = {}
    for where, leaf in leaves(value, name):
        shape = getattr(leaf, "shape", None)
        if shape is None or len(shape) == 0:
            found = type(leaf).__name__ if shape is None else "a single number"
            raise TaskError(f"`{where}` must be a tensor or an array with a dimension of examples, found {found}")
        counts[where] = int(shape[0])
    if not counts:
        raise TaskError(f"`{name}` holds no tensor")
    first, *others = counts
    for where in others:
        if counts[where] != counts[first]:
            raise TaskError(
                f"`{where}` has {counts[where]} examples and `{first}` has {counts[first]}, expected as many in every part"
            )
    return counts[first]


def cast(value: Nested, dtype: torch.dtype | None, device: torch.device | str = "cpu") -> Nested:
    """Move tensors to the device, floating ones also to `dtype` (None: as they are); integers (tokens, classes) keep theirs."""

    def moved(leaf: Tensor) -> Tensor:
        return leaf.to(device, dtype) if dtype is not None and leaf.is_floating_point() else leaf.to(device)

    return mapped(moved, value)
