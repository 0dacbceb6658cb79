"""Opening one `.npy` file: mapped into memory, never unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class UnreadableArray(Exception):
    """A file that is no `.npy` array, with the reason in one line; whoever opens it makes this an error of its own."""


class SeveralArrays(UnreadableArray):
    """An archive of arrays (.npz)."""


def map_array(path: Path) -> NDArray[Any]:
    """Map a .npy file into memory, read-only. Raises UnreadableArray, from the error that says why; no file stays open then."""
    try:
        with path.open("rb") as file:
            archive = file.read(2) == b"PK"
        if not archive:  # NumPy leaves archives that it cannot read open
            found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            return found
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableArray(" ".join(str(error).split()) or type(error).__name__) from error
    if zipfile.is_zipfile(path):
        raise SeveralArrays("holds several arrays (.npz)")
    raise UnreadableArray("it begins as an archive (.npz) and is none")
