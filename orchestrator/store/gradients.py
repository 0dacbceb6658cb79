"""What is kept of the training examples' gradients: a Zarr group an estimator, in it one a network, there whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from estimators.kept_gradients import MULTIPLIERS, ROWS, KeptGradients
from orchestrator.store.arrays import group_metadata
from orchestrator.store.chunked_arrays import ChunkedArray, write_array
from orchestrator.store.durable import create_file, folder_at_once
from orchestrator.store.hashes import content_hash
from orchestrator.store.metadata import METADATA, make_group, read_attributes, undamaged
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import entries_of, is_folder

_DIMENSIONS = {ROWS: ("example", "feature"), MULTIPLIERS: ("example",)}
_PARTS = ("identity", "projection", "told")
_BLOCK = 4096


def write_gradients(paths: SweepPaths, name: str, number: int, gradients: KeptGradients) -> None:
    """Write what belongs to a network, in place of what was there, durably.

    A process killed meanwhile leaves what was there, the new one or none, never part of one. Raises StoreError when the disk
    refuses.
    """
    final = paths.network_gradients(name, number)
    with folder_at_once(final) as temporary:
        make_group(paths.gradients)
        make_group(paths.estimator_gradients(name))
        temporary.mkdir()
        arrays = {key: _write(temporary / key, array) for key, array in gradients.arrays.items()}
        content: dict[str, Any] = {part: dict(getattr(gradients, part)) for part in _PARTS}
        content["arrays"] = {key: array.told() for key, array in arrays.items()}
        attributes = {**content, "content_hash": _hash(content)}
        create_file(temporary / METADATA, json.dumps(group_metadata(attributes), indent=1).encode())


def read_gradients(paths: SweepPaths, name: str, number: int) -> KeptGradients | None:
    """Return what is kept of a network, its arrays to be read when they are asked for; None where nothing is.

    Raises StoreError, naming the file, where it is damaged; so does reading its arrays.
    """
    path = paths.network_gradients(name, number)
    if not is_folder(path):
        return None
    attributes = read_attributes(path)
    with undamaged(str(path / METADATA)):
        content = {part: attributes[part] for part in (*_PARTS, "arrays")}
        if attributes["content_hash"] != _hash(content):
            raise ValueError("it is not what was written")
        arrays = {key: ChunkedArray.open(path / key, told) for key, told in content["arrays"].items()}
    return KeptGradients(content["identity"], content["projection"], content["told"], arrays)


def check_gradients(gradients: KeptGradients) -> None:
    """Read all arrays of what was returned. Raises StoreError for the first that is damaged."""
    for array in gradients.arrays.values():
        if isinstance(array, ChunkedArray):
            array.check()


def kept_networks(paths: SweepPaths, name: str) -> list[int]:
    """Return the numbers of the networks of which something is kept, ascending."""
    entries = entries_of(paths.estimator_gradients(name))
    return sorted(int(one.name) for one in entries if one.name.isdecimal() and one.is_dir(follow_symlinks=False))


def kept_estimators(paths: SweepPaths) -> list[str]:
    """Return the names of the estimators whose gradients are kept, sorted."""
    folders = (one.name for one in entries_of(paths.gradients) if one.is_dir(follow_symlinks=False))
    return sorted(name for name in folders if not name.startswith(".") and kept_networks(paths, name))


def _write(path: Path, array: Any) -> ChunkedArray:
    shape = tuple(array.shape)
    dimensions = _DIMENSIONS.get(path.name, tuple(f"{path.name}_{axis}" for axis in range(len(shape))))
    first = np.asarray(array[:1])
    blocks = (np.asarray(array[start : start + _BLOCK]) for start in range(0, shape[0], _BLOCK))
    return write_array(path, shape, first.dtype, dimensions, blocks, compressed=False)


def _hash(content: dict[str, Any]) -> str:
    return content_hash(json.dumps(content, sort_keys=True).encode())
