"""Arrays that are loaded once a process and shared read-only.

The driver builds the task first, so that its process's `SHARED` holds every array it needed; what a worker's `SHARED` is
provided with is used instead of the file. Keys name the data set and the absolute path it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from workers.errors import DataError

if TYPE_CHECKING:
    import torch

Arrays = dict[str, NDArray[Any]]


class SharedArrays:
    """Read-only arrays by the data set they belong to; a key's arrays never change."""

    def __init__(self) -> None:
        self._arrays: dict[str, Arrays] = {}

    def get(self, key: str, load: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of `key`, read-only, calling `load` the first time they are asked for."""
        if key not in self._arrays:
            self.provide({key: load()})
        return self._arrays[key]

    def provide(self, arrays_by_key: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Use these arrays for their keys from now on, without copying them; a key that is already there stays as it is."""
        for key, arrays in arrays_by_key.items():
            self._arrays.setdefault(key, {name: _read_only(array) for name, array in arrays.items()})

    def loaded(self) -> dict[str, Arrays]:
        """Return everything loaded so far, by key: what the driver hands to the workers."""
        return dict(self._arrays)

    def clear(self) -> None:
        """Forget all arrays. Whoever still holds some keeps them."""
        self._arrays.clear()


SHARED = SharedArrays()
"""This process's own. A worker's is filled with the driver's arrays, and emptied when another pool's work arrives."""


def to_tensor(array: NDArray[Any], dtype: DTypeLike) -> torch.Tensor:
    """Return a tensor of `dtype` that may be written to: it shares `array`'s memory only when that is writable too.

    Shared arrays are read-only, and PyTorch has no read-only tensors; the copy is the same one that a conversion makes.
    """
    import torch

    return torch.from_numpy(array.astype(dtype, order="C", copy=not array.flags.writeable))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def existing(path: str | Path) -> Path:
    """Return the path of a file that is there. Raises DataError, with the places that were looked at."""
    if not Path(path).is_file():
        raise DataError(
            f"there is no file {path}; data is looked for beside the configuration, "
            "in $COUNTERFACTORY_DATA, ./data and ../shared/data"
        )
    return Path(path)


def is_gz(path: str | Path) -> bool:
    """Say whether a file is compressed by gzip."""
    return Path(path).suffix == ".gz"
