"""Queries that come later, from a file: in the form of a task's own batches, and what is checked of any that was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.data.examples import Readable
from workers.data.nested import Nested, leaves, length, mapped
from workers.data.shared import existing
from workers.errors import DataError, TaskError


def read_batch(path: Path, own: Readable) -> Nested:
    """Return a batch from an .npz that has an array for every leaf of a batch of `own`, by its name (`inputs.tokens`)."""
    like = own.read(torch.tensor([0]))
    names = [name for name, _ in leaves(like, "")] if isinstance(like, dict | tuple | list) else ["batch"]
    if path.suffix != ".npz":
        raise DataError(
            f"{path}: the task reads new queries from an .npz with {_listed(names)}; for other files it needs a method "
            "read_queries(path)"
        )
    arrays = read_npz(path, names)
    found = iter(names)
    return mapped(lambda _: torch.from_numpy(arrays[next(found)]), like)


def read_npz(path: Path, names: list[str]) -> dict[str, NDArray[Any]]:
    """Return arrays of an .npz by name. Raises DataError where it cannot be read or lacks one."""
    there = existing(path)
    try:
        with there.open("rb") as file, np.load(file, allow_pickle=False) as archive:  # NumPy leaves a broken one open
            lacking = [name for name in names if name not in archive.files]
            known = list(archive.files)
            arrays = {} if lacking else {name: archive[name] for name in names}
    except Exception as error:  # zipfile's, zlib's, NumPy's: damage has many
        raise DataError(f"{path} cannot be read as an .npz of arrays: {' '.join(str(error).split())}") from error
    if lacking:
        raise DataError(f"{path}: expected {_listed(names)}, found {_listed(known) if known else 'none'}")
    return arrays


def checked(batch: Nested, own: Readable, path: Path) -> Nested:
    """Return a batch that was read as the task's own are, with at least one query.

    Raises DataError for other leaves than its own have, for numbers of another kind, and for numbers that are not finite.
    """
    try:
        count = length(batch, "queries")
    except TaskError as error:
        raise DataError(f"{path}: {error}") from error
    if count == 0:
        raise DataError(f"{path}: holds no query")
    like = dict(leaves(own.read(torch.tensor([0])), "queries"))
    found = {name: torch.as_tensor(leaf) for name, leaf in leaves(batch, "queries")}
    if list(found) != list(like):
        raise DataError(f"{path}: a batch of queries has {_listed(list(found))}, the task's has {_listed(list(like))}")
    for name, leaf in found.items():
        if _told(leaf) != _told(like[name]):
            raise DataError(
                f"{path}: {name} is {_told(leaf)}, expected {_told(like[name])} as in the task's own queries"
            )
        if leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
            raise DataError(f"{path}: {name} has numbers that are not finite")
    return mapped(torch.as_tensor, batch)


def _told(leaf: Tensor) -> str:
    kind = "floating" if leaf.is_floating_point() else "bool" if leaf.dtype == torch.bool else "integer"
    return f"{kind} with {leaf.ndim} dimensions"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
