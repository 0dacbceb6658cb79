"""Attributions on disk: one Zarr group an estimator, there wholly or not at all."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.arrays import read_rows
from orchestrator.store.durable import (
    folder_at_once,
    is_being_replaced,
    make_folder,
    refusing,
    remove_at_once,
    remove_file,
    write_atomically,
)
from orchestrator.store.manifest import read_manifest
from orchestrator.store.metadata import METADATA, ArrayMetadata, make_group, read_attributes
from orchestrator.store.paths import SweepPaths, is_name
from orchestrator.store.plain_files import entries_of, is_folder, status_of
from orchestrator.store.strict_json import jsonable
from workers.errors import StoreError, near

Floats = NDArray[np.float32]
Content = TypeVar("Content")

_DIGEST = "content_hash"
_REMEDY = "run `counterfactory attribute --again` to compute it anew"
_TRIES, _PAUSE = 20, 0.02
"""How often an attribution that is being replaced is read, and how many seconds are waited in between."""
_CHUNK_BYTES = 16 * 2**20
_DIMENSIONS = {
    "values": ("example", "query"),
    "bias": ("query",),
    "standard_error": ("example", "query"),
    "utility": ("example",),
    "utility_standard_error": ("example",),
}


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """What an attribution tells of itself: where it comes from, what it cost, how it is to be read."""

    estimator: str
    """Registered name of the estimator, or `path/to/file.py:Class` of one's own."""
    package: str = ""
    """The package that registers it, and its version; empty for one of ours or one's own."""
    source: Mapping[str, str] = field(default_factory=dict)
    """Of an estimator of one's own, a hash of each source file, by its path from the folder of the first."""
    claims_units: bool | None = None
    """Whether the values claim to be in units of the measure; None where nobody wrote it down."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options it was made with."""
    measure: str
    """The measure of which the values are effects."""
    needs: tuple[str, ...] = ()
    """What the estimator asked for."""
    fitted_on: tuple[str, ...] = ()
    """Designs whose runs it used; it is never scored on these."""
    models: int = 0
    """Number of trained models it used."""
    seconds: float = 0.0
    """Time the estimator took, in seconds."""
    train_seconds: float = 0.0
    """Worker time of the runs and reference models that it used, in seconds."""
    stamp: str = ""
    """What decided it beside the runs: estimator, options and measure."""
    provenance: str = ""
    """Id of what its task was, in provenance.json; empty for one that was computed from runs alone."""
    rows: Mapping[str, str] = field(default_factory=dict)
    """Of each design whose runs it may have used, the hash over the hashes of the rows it was given, in order. While these and
    the stamp stay the same, the attribution stands."""
    degrees_of_freedom: float = math.inf
    """Degrees of freedom of Student's t that intervals of the values need."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the estimator tells, as JSON holds it."""

    def to_json(self) -> dict[str, Any]:
        """Return what the file holds."""
        plain: dict[str, Any] = jsonable({one.name: getattr(self, one.name) for one in fields(self)})
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], where: str) -> Attributes:
        """Return what the file `where` holds; keys that are not known are passed over. Raises StoreError when one is missing."""
        known = {one.name: plain[one.name] for one in fields(cls) if one.name in plain}
        known |= {name: tuple(known[name]) for name in ("needs", "fitted_on") if name in known}
        for name in ("rows", "source"):  # what cannot be compared with what is there is said to be unknown
            hashes = known.pop(name, None)
            known[name] = {str(key): str(digest) for key, digest in hashes.items()} if isinstance(hashes, dict) else {}
        if known.get("degrees_of_freedom") is None:  # JSON has no infinity
            known["degrees_of_freedom"] = math.inf
        try:
            return cls(**known)
        except TypeError as error:
            raise StoreError(
                f"{where} is no attribution of counterfactory: it names no estimator or no measure"
            ) from error


@dataclass(frozen=True)
class StoredAttribution:
    """An attribution as it is kept: n examples, t queries."""

    values: Floats
    """(n, t) float32."""
    attributes: Attributes
    """Where it comes from, what it cost, how it is to be read."""
    bias: Floats | None = None
    """(t,) where the estimator gives one."""
    standard_error: Floats | None = None
    """(n, t) standard errors of the values, where the estimator gives them."""
    utility: Floats | None = None
    """(n,) values of the measure's mean over the queries, where the estimator gives them."""
    utility_standard_error: Floats | None = None
    """(n,) their standard errors."""
    content_hash: str = ""
    """Hash of all of these, where it was read from a sweep."""

    def arrays(self) -> dict[str, Floats]:
        """Return the arrays that are given, by name. Raises ValueError for shapes that do not fit together."""
        given = {key: getattr(self, key) for key in _DIMENSIONS}
        arrays = {key: np.asarray(array, dtype=np.float32) for key, array in given.items() if array is not None}
        lengths = dict(zip(_DIMENSIONS["values"], self.values.shape, strict=False))
        for key, array in arrays.items():
            expected = tuple(lengths.get(dimension, -1) for dimension in _DIMENSIONS[key])
            if self.values.ndim != 2 or array.shape != expected:
                raise ValueError(f"{key} of an attribution has shape {array.shape}, expected {expected}")
        return arrays


def write_attribution(paths: SweepPaths, name: str, stored: StoredAttribution) -> None:
    """Write an attribution in place of an earlier one of that name.

    A process killed meanwhile leaves the earlier attribution, the new one or none, never part of one. Raises ValueError for
    wrong shapes, StoreError when the disk refuses.
    """
    arrays = stored.arrays()
    with folder_at_once(paths.attribution(name)) as temporary:
        make_group(paths.attributions)
        _write_group(temporary, arrays, {**stored.attributes.to_json(), _DIGEST: _digest(arrays)})


def read_attribution(paths: SweepPaths, name: str) -> StoredAttribution:
    """Return an attribution, read once and its hash checked.

    One that is replaced meanwhile is read again: what is returned was all written together. Raises StoreError when there is
    no such attribution, or its content is not what was written.
    """
    return _read_while_it_stays(paths, name, lambda path: _read_checked(paths, path))


def _read_checked(paths: SweepPaths, path: Path) -> StoredAttribution:
    attributes = read_attributes(path)
    said = {key: ArrayMetadata.read(path / key) for key in _DIMENSIONS if is_folder(path / key)}
    _refuse_shapes(paths, path, said)
    arrays = {key: _read_array(path / key, one) for key, one in said.items()}
    if attributes.get(_DIGEST) != _digest(arrays):
        raise StoreError(f"{path} is damaged: {_REMEDY}")
    content = str(attributes[_DIGEST])
    return StoredAttribution(attributes=Attributes.from_json(attributes, str(path)), content_hash=content, **arrays)


def read_attributes_of(paths: SweepPaths, name: str) -> Attributes:
    """Return what an attribution tells of itself: no array is read, and no hash checked.

    Raises StoreError when there is no such attribution, or its metadata is damaged.
    """
    return _read_while_it_stays(paths, name, lambda path: Attributes.from_json(read_attributes(path), str(path)))


def content_hash_of(paths: SweepPaths, name: str) -> str:
    """Return the hash that an attribution says its arrays have: none is read. Raises StoreError as `read_attributes_of` does."""
    return _read_while_it_stays(paths, name, lambda path: str(read_attributes(path).get(_DIGEST, "")))


def _read_while_it_stays(paths: SweepPaths, name: str, read: Callable[[Path], Content]) -> Content:
    """Return what `read` makes of an attribution's folder; where it fails and the folder was replaced meanwhile, read again."""
    path = paths.attribution(name)
    for _ in range(_TRIES):
        before = _identity(path)
        try:
            return read(_find(paths, name))
        except StoreError:
            if _identity(path) == before and not (before is None and is_being_replaced(path)):
                raise
        time.sleep(_PAUSE)
    return read(_find(paths, name))


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a folder from the one that replaces it, None where there is none."""
    status = status_of(path)
    return None if status is None else (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def _find(paths: SweepPaths, name: str) -> Path:
    path = paths.attribution(name)
    if not is_folder(path):
        raise StoreError(f"{paths.attributions} has no attribution {name!r}: {near(name, list_attributions(paths))}")
    return path


def remove_attribution(paths: SweepPaths, name: str) -> None:
    """Remove an attribution, if there is one of that name."""
    with refusing("remove", paths.attribution(name)):
        remove_at_once(paths.attribution(name))


def keep_failure(paths: SweepPaths, name: str, traceback: str) -> Path:
    """Keep the traceback of an estimator that failed, in place of an earlier one; return its file."""
    path = paths.estimator_failure(name)
    make_folder(path.parent)
    write_atomically(path, traceback.encode(), private=True)
    return path


def forget_failure(paths: SweepPaths, name: str) -> None:
    """Remove the traceback of an estimator that failed before, if there is one."""
    path = paths.estimator_failure(name)
    with refusing("remove", path):
        remove_file(path)


def list_attributions(paths: SweepPaths) -> list[str]:
    """Return the names of all attributions, sorted."""
    entries = entries_of(paths.attributions)
    return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and is_name(entry.name))


def _write_group(path: Path, arrays: Mapping[str, Floats], attributes: Mapping[str, Any]) -> None:
    import zarr  # takes a third of a second, which who only reads need not wait
    from zarr.codecs import Crc32cCodec, ZstdCodec

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


def _refuse_shapes(paths: SweepPaths, path: Path, said: Mapping[str, ArrayMetadata]) -> None:
    """Raise StoreError unless the arrays are as large as the sweep, before any of them is allocated."""
    if "values" not in said or len(said["values"].shape) != 2:
        raise StoreError(f"{path} is damaged: {_REMEDY}")
    n, t = said["values"].shape
    if is_folder(paths.runs):
        manifest = read_manifest(paths)
        n, t = manifest.n, manifest.t
    lengths = {"example": n, "query": t}
    for key, one in said.items():
        expected = tuple(lengths[dimension] for dimension in _DIMENSIONS[key])
        if one.shape != expected:
            raise StoreError(
                f"{path / key / METADATA} says that {key} has shape {one.shape}, expected {expected}: {_REMEDY}"
            )


def _read_array(path: Path, said: ArrayMetadata) -> Floats:
    """Return an array; where it is all NaN no chunk was written of it, and values never are."""
    try:
        return read_rows(path, said, whole=path.name == "values")
    except StoreError as error:
        raise StoreError(f"{error} ({_REMEDY})") from error


def _digest(arrays: Mapping[str, Floats]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key in _DIMENSIONS:
        if key in arrays:
            digest.update(f"{key}{arrays[key].shape}".encode())
            digest.update(np.ascontiguousarray(arrays[key], dtype="<f4").data)
    return digest.hexdigest()
