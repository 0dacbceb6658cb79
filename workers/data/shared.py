"""Arrays that are loaded once a task and shared read-only.

They belong to the task that was built with them. The driver builds it first, so that its arrays hold every data set that it
needed; a worker that builds it with those reads no file. Another task of the same process loads its own, as a file may have
changed meanwhile. Keys name the data set and the absolute path it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from workers.errors import DataError

if TYPE_CHECKING:
    import torch

Arrays = dict[str, NDArray[Any]]


class SharedArrays:
    """One task's read-only arrays, by the data set they belong to; a key's arrays never change."""

    def __init__(self, arrays_by_key: Mapping[str, Mapping[str, NDArray[Any]]] | None = None) -> None:
        """Begin with these arrays, which are not copied."""
        self._arrays: dict[str, Arrays] = {}
        for key, arrays in (arrays_by_key or {}).items():
            self._keep(key, arrays)

    def get(self, key: str, load: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of `key`, read-only, calling `load` the first time they are asked for."""
        if key not in self._arrays:
            self._keep(key, load())
        return self._arrays[key]

    def loaded(self) -> dict[str, Arrays]:
        """Return everything loaded so far, by key."""
        return dict(self._arrays)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let data sets that are asked for meanwhile, in this thread, be those of these arrays."""
        token = _IN_USE.set(self)
        try:
            yield
        finally:
            _IN_USE.reset(token)

    def _keep(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays[key] = {name: _read_only(array) for name, array in arrays.items()}


_IN_USE: ContextVar[SharedArrays | None] = ContextVar("shared arrays in use", default=None)


def shared(key: str, load: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of `key`, read-only: those in use, else what `load` returns, kept by nobody."""
    return (_IN_USE.get() or SharedArrays()).get(key, load)


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
