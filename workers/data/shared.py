"""Arrays that are loaded once a process and shared read-only.

The driver builds the task first, so that `loaded()` holds every array it needed; what `provide()` puts in place on a
worker is used instead of the file. Keys name the data set and the absolute path it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from workers.errors import DataError

Arrays = dict[str, NDArray[Any]]

_cache: dict[str, Arrays] = {}  # filled by cached() and provide() only; a key's arrays never change


def cached(key: str, load: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of `key`, read-only, calling `load` the first time this process asks for them."""
    if key not in _cache:
        provide({key: load()})
    return _cache[key]


def loaded() -> dict[str, Arrays]:
    """Return everything loaded in this process so far, by key: what the driver hands to the workers."""
    return dict(_cache)


def provide(arrays_by_key: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
    """Use these arrays for their keys from now on, without copying them; a key that is already there stays as it is."""
    for key, arrays in arrays_by_key.items():
        _cache.setdefault(key, {name: _read_only(array) for name, array in arrays.items()})


def to_tensor(array: NDArray[Any], dtype: DTypeLike) -> torch.Tensor:
    """Return a tensor of `dtype` that may be written to: it shares `array`'s memory only when that is writable too.

    Shared arrays are read-only, and PyTorch has no read-only tensors; the copy is the same one that a conversion makes.
    """
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
