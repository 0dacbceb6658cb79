"""Finding and opening the arrays of a source."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from workers.data.npy import SeveralArrays, map_array
from workers.errors import DataError

SUFFIXES = (".npy", ".pt")


def open_array(path: Path) -> NDArray[Any]:
    """Map a .npy file, or load the one tensor of a .pt file. Raises DataError when it is neither."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a name that ends in .npy or .pt")
    try:
        return _numpy(path) if path.suffix == ".npy" else _tensor(path)
    except DataError:
        raise
    except Exception as error:  # what unpickling raises of bytes that make no sense can be of any class
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: cannot be read: {first}") from error


def _numpy(path: Path) -> NDArray[Any]:
    try:
        return map_array(path)
    except SeveralArrays as error:
        raise DataError(f"{path}: holds several arrays, expected one") from error


def _tensor(path: Path) -> NDArray[Any]:
    mapped = zipfile.is_zipfile(path)  # files of torch before 1.6 cannot be mapped
    found = torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
    if not isinstance(found, torch.Tensor):
        keys = f" with the keys {', '.join(map(str, found))}" if isinstance(found, dict) else ""
        raise DataError(f"{path}: holds a {type(found).__name__}{keys}, expected one tensor")
    found = found.detach()
    array: NDArray[Any] = (found.float() if found.dtype == torch.bfloat16 else found).numpy()
    return array


def masks_file(source: Path, suffix: str) -> Path:
    """Return the file of masks: `source` itself, or the one in that folder whose name speaks of masks."""
    if source.is_file():
        return source
    found = sorted(path for path in source.glob(f"*{suffix}") if "mask" in path.stem)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or f"no *mask*{suffix}"
        raise DataError(f"{source}: expected one file of masks, found {names}; name the file itself")
    return found[0]


def outputs_file(source: Path, masks: Path | None, named: str | None, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """Return the file of outputs: the one `named` (a file, or a name in the source's folder), else the only one it can be."""
    folder = source if source.is_dir() else source.parent
    if named is not None:
        tried = [folder / named, *(folder / f"{named}{suffix}" for suffix in suffixes), Path(named)]
        found = next((path for path in tried if path.is_file()), None)
        if found is None:
            raise DataError(f"{source}: found no outputs {named!r}, neither in {folder} nor as a file")
        return found
    able = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in suffixes and path != masks and path.name[0] != "_" and "mask" not in path.stem
    )
    if len(able) != 1:
        names = ", ".join(path.name for path in able) or "none"
        raise DataError(f"{source}: cannot tell which file holds the outputs ({names}); name it with --outputs")
    return able[0]
