"""Take in anybody's attribution: an array or a .npy file, refused with one clear line when it cannot be judged."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workers.data.npy import SeveralArrays, UnreadableArray, map_array
from workers.errors import DataError

_BLOCK = 1 << 24


def judge_array(source: str | PathLike[str] | ArrayLike, n: int, t: int) -> NDArray[np.floating]:
    """Return the attribution (n, t) as finite floats: float32 and float64 keep their precision, others become float64.

    `source` is an array or the path of a .npy file, which is never unpickled. Raises DataError for a file that cannot
    be read, a type that is not a real number, a wrong shape, and NaN or infinite values (with their number).

    >>> from estimators.scores import judge_array
    >>> judge_array([[1, 0, 2], [0, 3, 1]], n=2, t=3).dtype.name
    'float64'
    >>> judge_array([[1, 0, 2], [0, 3, 1]], n=3, t=2)
    Traceback (most recent call last):
    workers.errors.DataError: the attribution: its shape is (2, 3), expected (3, 2) = (examples, queries); it looks transposed
    """
    if isinstance(source, str | PathLike):
        path = Path(source)
        return _checked(_load(path), str(path), n, t)
    return _checked(np.asarray(source), "the attribution", n, t)


def _load(path: Path) -> NDArray[np.generic]:
    """Map a .npy file into memory, read-only."""
    try:
        return map_array(path)
    except SeveralArrays as error:
        raise DataError(f"{path}: {error}, expected one .npy array") from error
    except UnreadableArray as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise DataError(f"{path}: no such file, expected a .npy array") from error
        raise DataError(f"{path}: cannot be read as a .npy array of numbers ({error})") from error


def _checked(values: NDArray[np.generic], what: str, n: int, t: int) -> NDArray[np.floating]:
    if values.dtype.kind not in "iuf":
        raise DataError(f"{what}: its type is {values.dtype}, expected real numbers such as float32")
    if values.shape != (n, t):
        hint = "; it looks transposed" if values.shape == (t, n) else ""
        raise DataError(f"{what}: its shape is {values.shape}, expected ({n}, {t}) = (examples, queries){hint}")
    floats = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
    nan, infinite = _count_non_finite(floats)
    if nan or infinite:
        raise DataError(
            f"{what}: {nan} of its {floats.size} values are NaN and {infinite} infinite, expected finite ones"
        )
    return floats  # type: ignore[return-value]


def _count_non_finite(values: NDArray[np.generic]) -> tuple[int, int]:
    """Count NaN and infinite values, a block of rows at a time (a mapped file may be larger than memory)."""
    nan = infinite = 0
    step = max(1, _BLOCK // max(1, values.shape[1]))
    for start in range(0, len(values), step):
        block = np.asarray(values[start : start + step], dtype=np.float64)
        nan += int(np.isnan(block).sum())
        infinite += int(np.isinf(block).sum())
    return nan, infinite
