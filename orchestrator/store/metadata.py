"""The zarr.json files of a sweep: read as JSON and held against what is expected, before anything has the size that they ask for.

Zarr would read them too, and follow a link where one lies.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from orchestrator.store.durable import make_folder, refusing, write_atomically
from orchestrator.store.plain_files import is_plain, text_of
from workers.errors import StoreError

METADATA = "zarr.json"


@dataclass(frozen=True)
class ArrayMetadata:
    """What the zarr.json of an array says."""

    dtype: str
    """Such as float32."""
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    """Shape of a chunk."""
    codecs: tuple[str, ...]
    """Names of what its chunks are written by, in this order."""
    separator: str
    """Between the numbers in a chunk's name."""

    @classmethod
    def read(cls, path: Path) -> ArrayMetadata:
        """Return what is said of the array in the folder `path`. Raises StoreError where that makes no sense."""
        with _reading(path, "array") as plain:
            made = cls(
                dtype=str(np.dtype(plain["data_type"])),
                shape=_sizes(plain["shape"]),
                chunks=_sizes(plain["chunk_grid"]["configuration"]["chunk_shape"]),
                codecs=tuple(str(codec["name"]) for codec in plain["codecs"]),
                separator=plain["chunk_key_encoding"]["configuration"]["separator"],
            )
            if made.separator not in (".", "/") or len(made.chunks) != len(made.shape):
                raise ValueError("its chunks are not those of its shape")
            return made

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array in memory."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def _sizes(value: Any) -> tuple[int, ...]:
    if not (isinstance(value, list) and value and all(type(size) is int and size > 0 for size in value)):
        raise ValueError(f"{value!r} is no shape")
    return tuple(value)


def read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a group. Raises StoreError when its metadata is damaged."""
    with _reading(path, "group") as plain:
        return dict(plain.get("attributes", {}))


def write_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of a group, durably."""
    with _reading(path, "group") as plain:
        content = {**plain, "attributes": dict(attributes)}
    write_metadata(path, content)


def resize(path: Path, rows: int) -> None:
    """Give an array so many rows, durably."""
    with _reading(path, "array") as plain:
        content = {**plain, "shape": [rows, *plain["shape"][1:]]}
    write_metadata(path, content)


def write_metadata(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the zarr.json in the folder `path`; what was there stays until the new one is on the disk."""
    write_atomically(path / METADATA, json.dumps(content, indent=2).encode())


def make_group(path: Path) -> None:
    """Make a folder a group without attributes, if it is none yet, durably."""
    make_folder(path)
    if not is_plain(path / METADATA):
        write_atomically(path / METADATA, b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')


@contextmanager
def _reading(path: Path, kind: Literal["array", "group"]) -> Iterator[dict[str, Any]]:
    """Yield what the zarr.json of a folder says; whatever goes wrong with it is a one-line StoreError that names the file."""
    metadata = path / METADATA
    with refusing("read", metadata), undamaged(str(metadata)):
        plain = json.loads(text_of(metadata))
        if plain["zarr_format"] != 3 or plain["node_type"] != kind:
            raise ValueError(f"it is no Zarr v3 {kind}")
        yield plain


@contextmanager
def undamaged(what: str) -> Iterator[None]:
    """Turn whatever is raised of bytes that make no sense into a one-line StoreError."""
    try:
        yield
    except (StoreError, OSError):
        raise
    except Exception as error:  # JSON that is cut off, keys that are gone, nesting without end: any class there is
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StoreError(f"{what} is damaged: {reason}") from error
