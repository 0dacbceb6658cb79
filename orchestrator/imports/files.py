"""Finding and opening the arrays of a source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from orchestrator.imports import torch_files
from workers.data.npy import SeveralArrays, UnreadableArray, map_array
from workers.errors import ConfigError, DataError

SUFFIXES = (".npy", ".pt")


def open_array(path: Path) -> NDArray[Any]:
    """Map a .npy file, or load the one tensor or array of a .pt file. Raises DataError when it is neither."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a name that ends in .npy or .pt")
    if path.suffix == ".pt":
        return torch_files.to_array(torch_files.load(path), str(path))
    try:
        return map_array(path)
    except SeveralArrays as error:
        raise DataError(f"{path}: holds several arrays, expected one") from error
    except UnreadableArray as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


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


def beside(source: Path, stem: str) -> Path | None:
    """Return the array of that name, `stem`.npy or `stem`.pt, in the folder of a source; None where there is none."""
    folder = source if source.is_dir() else source.parent
    return next((path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()), None)


def declared_n(path: Path, n: int | None) -> tuple[int, dict[str, Any]]:
    """Return the number of examples, and all that the JSON file beside an array says: {"n": ...}.

    n is from that file, from the user, or from both when they agree. Raises ConfigError where neither tells it.
    """
    about = path.with_suffix(".json")
    if not about.is_file():
        if n is None:
            raise ConfigError(f"{path}: does not say how many training examples there were; give --n")
        return n, {}
    try:
        found = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{about}: cannot be read as JSON: {error}") from error
    declared = found.get("n") if isinstance(found, dict) else None
    if type(declared) is not int or declared < 1:
        raise DataError(f'{about}: expected {{"n": ...}}, the number of examples')
    if n is not None and n != declared:
        raise ConfigError(f"--n {n}: {about} says n {declared}")
    return declared, found
