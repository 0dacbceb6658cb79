"""Opening one `.pt` file: tensors, and NumPy's arrays as `torch.save` pickles them; nothing else is unpickled.

Stand-ins take the place of NumPy's names, so that of a pickled array only its numbers are read: no code of NumPy's own
unpickling sees what the file says of sizes, types and flags.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workers.errors import DataError


class _Type:
    """In the place of `numpy.dtype`: a kind and size of number such as `f4`, and its byte order."""

    def __init__(self, name: str, align: bool = False, copy: bool = False):
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def plain(self) -> np.dtype[Any]:
        """Return the type. Raises ValueError for what is no number or truth value."""
        if not re.fullmatch(r"b1|[iu][1248]|f[248]", self.name) or self.order not in tuple("<>=|"):
            raise ValueError(f"holds a NumPy array of {self.order}{self.name}, expected numbers")
        return np.dtype(self.order + self.name)


class _Array:
    """In the place of `numpy.ndarray`: made empty, as NumPy's pickles have it, and then given its bytes."""

    values: NDArray[Any] | None = None

    def __init__(self, kind: Any, shape: Any, code: Any):
        """Take what stands in every pickle of an array; what the array is follows in its state."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, data = state
        if not isinstance(kind, _Type) or not isinstance(data, bytes):
            raise ValueError("holds a NumPy array that is not one of numbers")
        self.values = np.frombuffer(data, kind.plain()).reshape(shape, order="F" if by_columns else "C")


def _no_bytes() -> bytes:
    """In the place of `bytes`: what the data of an empty array is pickled as."""
    return b""


# `numpy.core` became `numpy._core` with NumPy 2.
STAND_INS: list[tuple[Any, str]] = [
    (_Array, "numpy.core.multiarray._reconstruct"),
    (_Array, "numpy._core.multiarray._reconstruct"),
    (_Array, "numpy.ndarray"),
    (_Type, "numpy.dtype"),
    (_no_bytes, "builtins.bytes"),
]


def load(path: Path) -> Any:
    """Return what a .pt file holds: tensors, arrays (see `to_array`), and lists and dicts of them.

    Raises DataError, in one line, for a file that holds anything else or cannot be read.
    """
    try:
        mapped = zipfile.is_zipfile(path)  # files of torch before 1.6 cannot be mapped
        with torch.serialization.safe_globals(STAND_INS):  # type: ignore[arg-type]  # pairs are taken too
            return torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
    except Exception as error:  # what unpickling raises of bytes that make no sense can be of any class
        raise DataError(f"{path}: cannot be read: {_reason(error)}") from error


def to_array(found: Any, where: str) -> NDArray[Any]:
    """Return a tensor or array of `load` as an array, bfloat16 as float32. Raises DataError for anything else."""
    if isinstance(found, _Array) and found.values is not None:
        return found.values
    if not isinstance(found, torch.Tensor):
        keys = f" with the keys {', '.join(map(repr, found))}" if isinstance(found, dict) else ""
        raise DataError(f"{where}: holds a {type(found).__name__}{keys}, expected one tensor")
    found = found.detach()
    array: NDArray[Any] = (found.float() if found.dtype == torch.bfloat16 else found).numpy()
    return array


def _reason(error: Exception) -> str:
    """Return one plain line: PyTorch's own has several, escape codes, and the advice to load the file unsafely."""
    text = str(error)
    if asked := re.search(r"GLOBAL (\S+)", text):
        reason = f"it asks for {asked[1]}; only tensors and NumPy arrays of numbers are loaded, and nothing was run"
    elif inner := re.search(r"WeightsUnpickler error: ([^\n]*)", text):
        reason = inner[1]
    else:
        reason = (text.strip().splitlines() or [""])[0] or type(error).__name__
    return "".join(c for c in re.sub(r"\x1b\[[0-9;]*m", "", reason) if c.isprintable())
