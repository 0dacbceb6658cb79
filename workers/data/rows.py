"""Rows of an array that lies on disk, a batch at a time: mapped into memory, or stored in chunks (Zarr, HDF5)."""

from __future__ import annotations

import weakref
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KEPT_BYTES = 1 << 28
"""Of an array in chunks so much stays decoded, in every process: a batch is of many chunks, and decoding them outlasts a step."""


def rows_of(array: Any, indices: Tensor) -> Tensor:
    """Return the rows of the indices (...), int64, on the CPU, in the array's own type.

    Of what is neither a NumPy array nor in chunks each row is asked for once, in ascending order.
    """
    chunks = _kept_of(array)
    if chunks is not None and chunks.complete:
        chosen: Tensor = chunks.tensor[indices.cpu()]
        return chosen
    asked = indices.cpu().numpy()
    if isinstance(array, np.ndarray):
        return torch.from_numpy(np.asarray(array)[asked])  # plain: a memmap makes a memmap of what is in memory
    chunks = chunks or _chunks_of(array)
    if chunks is not None:
        return torch.from_numpy(chunks.rows(array, asked))
    rows, places = np.unique(asked, return_inverse=True)
    # Zarr takes a list of rows by `oindex`; whatever else there is takes it in brackets.
    return torch.from_numpy(np.asarray(getattr(array, "oindex", array)[rows])[places.reshape(asked.shape)])


class _Chunks:
    """An array in chunks, the first of which stay decoded, as many as have room: a pass comes by all of them alike."""

    def __init__(self, array: Any, size: int, room: int):
        """`size` rows are a chunk, and `room` chunks are kept."""
        self.size = size
        self.kept = np.empty((min(room * size, array.shape[0]), *array.shape[1:]), array.dtype)
        self.there = np.zeros(-(-len(self.kept) // size), dtype=bool)
        """Which of the chunks that are kept were read."""
        self._all_fit = len(self.kept) == array.shape[0]
        self.complete = False
        """Whether all of the array is here."""

    @cached_property
    def tensor(self) -> Tensor:
        """What is kept, as a tensor on the same memory."""
        return torch.from_numpy(self.kept)

    def rows(self, array: Any, asked: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows asked for, of any shape, of the array."""
        inside = asked < len(self.kept)
        numbers = asked // self.size
        if inside.all():
            self._keep(array, numbers)
            chosen: NDArray[Any] = self.kept[asked]
            return chosen
        self._keep(array, numbers[inside])
        found = np.empty((*asked.shape, *array.shape[1:]), array.dtype)
        found[inside] = self.kept[asked[inside]]
        for number in np.unique(numbers[~inside]):
            where = numbers == number
            found[where] = self._decoded(array, number)[asked[where] - number * self.size]
        return found

    def _keep(self, array: Any, numbers: NDArray[np.int64]) -> None:
        if self.there[numbers].all():
            return
        for number in np.unique(numbers[~self.there[numbers]]):
            chunk = self._decoded(array, number)
            start = number * self.size
            self.kept[start : start + len(chunk)] = chunk
            self.there[number] = True
        self.complete = self._all_fit and bool(self.there.all())

    def _decoded(self, array: Any, number: int) -> NDArray[Any]:
        return np.asarray(array[int(number) * self.size : (int(number) + 1) * self.size])


_OPEN: dict[int, tuple[weakref.ref[Any], _Chunks]] = {}
"""By an array's id, as long as it is there: Zarr's arrays have no hash."""


def _kept_of(array: Any) -> _Chunks | None:
    """Return what is kept of an array already: its own attributes, which may be slow to ask, are not looked at."""
    held = _OPEN.get(id(array))
    return held[1] if held is not None and held[0]() is array else None


def _chunks_of(array: Any) -> _Chunks | None:
    """Return what is kept of an array in chunks of rows; None of one that is in none, or in chunks too large to keep any."""
    shape = getattr(array, "chunks", None)
    if not isinstance(shape, tuple) or not shape or not all(isinstance(side, int) for side in shape):
        return None
    room = KEPT_BYTES // max(1, array.dtype.itemsize * shape[0] * int(np.prod(array.shape[1:])))
    if room == 0:
        return None
    key, made = id(array), _Chunks(array, shape[0], room)
    _OPEN[key] = weakref.ref(array, lambda _: _OPEN.pop(key, None)), made
    return made
