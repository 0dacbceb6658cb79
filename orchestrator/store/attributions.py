"""Attributions on disk: one Zarr group an estimator, there wholly or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from orchestrator.store.arrays import read_attributes, reading_metadata, undamaged
from orchestrator.store.durable import PARTIAL, make_folder, refusing, sync, sync_tree, write_atomically
from orchestrator.store.paths import SweepPaths
from workers.errors import StoreError, near

Floats = NDArray[np.float32]

_DIGEST = "content_hash"
_CHUNK_BYTES = 16 * 2**20
_DIMENSIONS = {
    "values": ("example", "query"),
    "bias": ("query",),
    "standard_error": ("example", "query"),
    "utility": ("example",),
    "utility_standard_error": ("example",),
}


def write_attribution(
    paths: SweepPaths,
    name: str,
    values: Floats,
    *,
    bias: Floats | None = None,
    standard_error: Floats | None = None,
    utility: Floats | None = None,
    utility_standard_error: Floats | None = None,
    attributes: Mapping[str, Any],
) -> None:
    """Write values (n, t), and optionally the others, in place of an earlier one of that name.

    bias is (t,), standard_error (n, t), utility and utility_standard_error (n,).
    `attributes` is anything JSON can hold, at least the measure. A process killed meanwhile leaves the earlier
    attribution, the new one or none, never part of one. Raises ValueError for wrong shapes, StoreError when the disk
    refuses.
    """
    given = {
        "values": values,
        "bias": bias,
        "standard_error": standard_error,
        "utility": utility,
        "utility_standard_error": utility_standard_error,
    }
    arrays = {key: np.asarray(array, dtype=np.float32) for key, array in given.items() if array is not None}
    for key, array in arrays.items():
        lengths = dict(zip(("example", "query"), values.shape, strict=False))
        expected = tuple(lengths.get(dimension, -1) for dimension in _DIMENSIONS[key])
        if values.ndim != 2 or array.shape != expected:
            raise ValueError(f"{key} of attribution {name!r} has shape {array.shape}, expected {expected}")
    final = paths.attribution(name)
    temporary, old = (final.with_name(f".{final.name}.{kind}{PARTIAL}") for kind in ("new", "old"))
    with refusing("write", final):
        _make_root(paths.attributions)
        _remove(temporary, old)
        _write_group(temporary, arrays, {**attributes, _DIGEST: _digest(arrays)})
        sync_tree(temporary)
        if final.exists():
            os.rename(final, old)
        os.rename(temporary, final)
        sync(paths.attributions)
        _remove(old)


def read_attribution(paths: SweepPaths, name: str) -> tuple[Floats, Floats | None, Floats | None, dict[str, Any]]:
    """Return values (n, t), bias (t,) or None, standard errors (n, t) or None, and the attributes.

    Raises StoreError when there is no such attribution, or its content is not what was written.
    """
    arrays, attributes = _read(paths, name)
    return arrays["values"], arrays.get("bias"), arrays.get("standard_error"), attributes


def read_utility(paths: SweepPaths, name: str) -> tuple[Floats | None, Floats | None]:
    """Return the values of the utility (n,) and their standard errors (n,), each None where the estimator gave none."""
    arrays, _ = _read(paths, name)
    return arrays.get("utility"), arrays.get("utility_standard_error")


def _read(paths: SweepPaths, name: str) -> tuple[dict[str, Floats], dict[str, Any]]:
    path = paths.attribution(name)
    if not path.exists():
        raise StoreError(f"{paths.attributions} has no attribution {name!r}: {near(name, list_attributions(paths))}")
    attributes = read_attributes(path)
    arrays = {key: _read_array(path / key) for key in _DIMENSIONS if (path / key).exists()}
    if attributes.pop(_DIGEST, None) != _digest(arrays) or "values" not in arrays:
        raise StoreError(f"{path} is damaged: run `counterfactory attribute` to compute it again")
    return arrays, attributes


def remove_attribution(paths: SweepPaths, name: str) -> None:
    """Remove an attribution, if there is one of that name."""
    with refusing("remove", paths.attribution(name)):
        _remove(paths.attribution(name))


def list_attributions(paths: SweepPaths) -> list[str]:
    """Return the names of all attributions, sorted."""
    if not paths.attributions.exists():
        return []
    return sorted(path.name for path in paths.attributions.iterdir() if path.is_dir() and path.name[0] != ".")


def _make_root(path: Path) -> None:
    """Create the group of all attributions; its metadata is what any Zarr v3 group without attributes has."""
    make_folder(path)
    if not (path / "zarr.json").exists():
        write_atomically(path / "zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')


def _write_group(path: Path, arrays: Mapping[str, Floats], attributes: Mapping[str, Any]) -> None:
    group = zarr.open_group(path, mode="w-", zarr_format=3, attributes=dict(attributes))
    for key, array in arrays.items():
        rows = max(1, min(len(array), _CHUNK_BYTES // max(1, array[:1].nbytes)))
        created = group.create_array(
            key,
            shape=array.shape,
            chunks=(rows, *array.shape[1:]),
            dtype="float32",
            fill_value=np.nan,
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            dimension_names=_DIMENSIONS[key],
        )
        created[...] = array


def _read_array(path: Path) -> Floats:
    with reading_metadata(path):
        array = zarr.open_array(path, mode="r", zarr_format=3)
    with refusing("read", path), undamaged(f"{path} (run `counterfactory attribute` to compute it again)"):
        return np.asarray(array[...], dtype=np.float32)


def _digest(arrays: Mapping[str, Floats]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key in _DIMENSIONS:
        if key in arrays:
            digest.update(f"{key}{arrays[key].shape}".encode())
            digest.update(np.ascontiguousarray(arrays[key], dtype="<f4").data)
    return digest.hexdigest()


def _remove(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
