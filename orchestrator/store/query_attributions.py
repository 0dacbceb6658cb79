"""Attributions of queries that came later, on disk: a Zarr group a file of queries, in it one an estimator.

They are as a sweep's own are (attributions.py), and lie apart: nothing that is scored or reported is among them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.arrays import group_metadata
from orchestrator.store.attributions import Attributes, StoredAttribution
from orchestrator.store.chunked_arrays import ChunkedArray, write_array
from orchestrator.store.durable import create_file, folder_at_once
from orchestrator.store.hashes import content_hash
from orchestrator.store.metadata import METADATA, make_group, read_attributes, undamaged
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import entries_of, is_folder
from workers.errors import StoreError, near

_VALUES = "values"
_DIGEST = "content_hash"
_TOLD = "attributes_hash"
"""Of everything else that the attributes say."""


def write_query_attribution(
    paths: SweepPaths,
    queries: str,
    name: str,
    attributes: Attributes,
    shape: tuple[int, int],
    blocks: Iterable[NDArray[np.float32]],
) -> None:
    """Write the attribution (n, q) of the queries that are called `queries`, consecutive rows of it at a time.

    It takes the place of an earlier one; a process killed meanwhile leaves that, the new one or none. Raises StoreError when the
    disk refuses.
    """
    digest = _digest(shape)

    def seen() -> Iterator[NDArray[np.float32]]:
        for block in blocks:
            digest.update(np.ascontiguousarray(block, dtype="<f4").data)
            yield block

    with folder_at_once(paths.query_attribution(queries, name)) as temporary:
        make_group(paths.queries)
        make_group(paths.queries / queries)
        temporary.mkdir()
        dimensions = ("example", "query")
        array = write_array(temporary / _VALUES, shape, np.dtype(np.float32), dimensions, seen(), compressed=True)
        told = {**attributes.to_json(), "array": array.told(), _DIGEST: digest.hexdigest()}
        told[_TOLD] = _hash_of(told)
        create_file(temporary / METADATA, json.dumps(group_metadata(told), indent=1).encode())


def read_query_attribution(paths: SweepPaths, queries: str, name: str) -> StoredAttribution:
    """Return an attribution of queries that came later.

    Raises StoreError when there is none, or it is not what was written.
    """
    path = paths.query_attribution(queries, name)
    if not is_folder(path):
        known = [f"{one}/{other}" for one, other in list_query_attributions(paths)]
        raise StoreError(f"{paths.queries} has no attribution {queries}/{name}: {near(f'{queries}/{name}', known)}")
    told = _told(path)
    with undamaged(str(path / METADATA)):
        array = ChunkedArray.open(path / _VALUES, told["array"])
        attributes = Attributes.from_json(told, str(path))
    values = array[:]
    digest = _digest(values.shape)
    digest.update(np.ascontiguousarray(values, dtype="<f4").data)
    if digest.hexdigest() != told.get(_DIGEST):
        raise StoreError(f"{path} is damaged: it is not what was written")
    return StoredAttribution(values, attributes, content_hash=digest.hexdigest())


def read_query_attributes(paths: SweepPaths, queries: str, name: str) -> Attributes:
    """Return what an attribution of queries that came later tells of itself. Raises StoreError where its metadata is damaged."""
    path = paths.query_attribution(queries, name)
    return Attributes.from_json(_told(path), str(path))


def list_query_attributions(paths: SweepPaths) -> list[tuple[str, str]]:
    """Return what there is, sorted: (what the queries are called, the estimator's label)."""
    return sorted(
        (folder.name, one.name)
        for folder in entries_of(paths.queries)
        if folder.is_dir(follow_symlinks=False)
        for one in entries_of(paths.queries / folder.name)
        if one.is_dir(follow_symlinks=False) and not one.name.startswith(".")
    )


def _told(path: Path) -> dict[str, Any]:
    """Return the attributes of a group. Raises StoreError where they are not what was written."""
    told = read_attributes(path)
    with undamaged(str(path / METADATA)):
        if told.pop(_TOLD, None) != _hash_of(told):
            raise ValueError("it is not what was written")
    return told


def _hash_of(told: dict[str, Any]) -> str:
    return content_hash(json.dumps(told, sort_keys=True).encode())


def _digest(shape: tuple[int, ...]) -> Any:
    return hashlib.blake2b(f"{_VALUES}{shape}".encode(), digest_size=16)
