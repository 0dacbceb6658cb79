"""The examples of a task, read a batch at a time: from tensors in memory, from arrays on disk, from a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from workers.data.nested import Nested, cast, length, mapped
from workers.data.rows import rows_of
from workers.errors import DataError, TaskError, one_line


class Batch(NamedTuple):
    """Some examples of a task whose training is ours."""

    inputs: Nested
    """What the module is called with: (b, ...) at every leaf."""
    targets: Nested
    """(b, ...) at every leaf."""


class Readable(ABC):
    """Examples that are read by their indices, in the type and on the device that was last asked for."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many there are."""

    @abstractmethod
    def read(self, indices: Tensor) -> Nested:
        """Return the examples of the indices (...), int64, with those dimensions first in every leaf."""

    @abstractmethod
    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Readable:
        """Return the same examples with floating leaves in `dtype`, all on the device; integers keep their type."""


@dataclass(frozen=True)
class Arrays(Readable):
    """Tensors in memory, and arrays that are read from where they lie (`numpy.memmap`, Zarr), in any nesting."""

    whole: Nested
    """(n, ...) at every leaf."""
    dtype: torch.dtype | None = None
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return length(self.whole, "examples")

    def read(self, indices: Tensor) -> Nested:
        """Return the chosen rows of every leaf."""
        return mapped(lambda leaf: self._rows(leaf, indices), self.whole)

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Arrays:
        """Cast the tensors once; what is read from arrays is cast when it is read."""

        def moved(leaf: Any) -> Any:
            return cast(leaf, dtype, device) if isinstance(leaf, Tensor) else leaf

        return Arrays(mapped(moved, self.whole), dtype, device)

    def _rows(self, leaf: Any, indices: Tensor) -> Tensor:
        if isinstance(leaf, Tensor):
            chosen: Tensor = leaf[indices]
            return chosen
        read: Tensor = cast(rows_of(leaf, indices), self.dtype, self.device)
        return read


@dataclass(frozen=True)
class Items(Readable):
    """The items of a map-style data set, put together by a function."""

    data: Any
    """Has `__len__` and `__getitem__(index)`."""
    collate: Callable[[list[Any]], Nested]
    name: str
    """What to call the data set in an error."""
    count: int
    """How many it had when the task was built."""
    dtype: torch.dtype | None = None
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Tensor) -> Nested:
        """Return the collated items.

        Raises DataError, naming the index, for one that cannot be read, TaskError for a batch that is none.
        """
        if len(self.data) != self.count:
            raise DataError(f"`{self.name}` has {len(self.data)} examples, it had {self.count} when the task was built")
        found = self.collate([self._item(index) for index in indices.flatten().tolist()])
        return placed(found, indices, f"collate(items) of `{self.name}`", self.dtype, self.device)

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Items:
        """Have every batch cast when it is read."""
        return replace(self, dtype=dtype, device=device)

    def _item(self, index: int) -> Any:
        try:
            return self.data[index]
        except Exception as error:
            raise DataError(f"`{self.name}`: example {index} cannot be read: {one_line(error)}") from error


def placed(
    batch: Nested, indices: Tensor, told: str, dtype: torch.dtype | None, device: torch.device | str = "cpu"
) -> Nested:
    """Return what somebody else's code read for the indices (...), with tensors at its leaves and those dimensions first.

    Raises TaskError, beginning with `told`, for what is no batch or has another number of examples.
    """

    def tensor(leaf: Any) -> Tensor:
        if isinstance(leaf, Tensor):
            return leaf
        if isinstance(leaf, np.ndarray):
            return torch.from_numpy(leaf)
        raise TaskError(f"{told}: a batch must hold tensors, found {type(leaf).__name__}")

    held = mapped(tensor, batch)
    if (count := length(held, "batch")) != indices.numel():
        raise TaskError(f"{told}: made a batch of {count} examples for {indices.numel()} indices")
    moved = cast(held, dtype, device)
    return mapped(lambda leaf: leaf.reshape(*indices.shape, *leaf.shape[1:]), moved)
