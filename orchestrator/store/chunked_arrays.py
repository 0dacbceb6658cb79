"""Arrays that are written once, some rows at a time, and read so: each chunk is held against the checksum that it was written
with, so that damage, a chunk of another array and chunks that changed places are all found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.arrays import SEPARATOR
from orchestrator.store.chunks import ChunkFormat, CodecError, checksum_of
from orchestrator.store.durable import create_file, refusing
from orchestrator.store.metadata import METADATA, undamaged
from orchestrator.store.plain_files import read_plain, text_of
from workers.errors import StoreError

CHUNK_BYTES = 4 * 2**20
"""Of a chunk's numbers, about: so few that memory is used again from chunk to chunk, and files are not too many."""


@dataclass
class ChunkedArray:
    """An array whose chunks are rows, in a folder as Zarr has it; rows are read when they are asked for."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    """Their names."""
    compressed: bool
    checksums: tuple[int, ...]
    """Those of its chunks."""
    _last: tuple[int, NDArray[Any]] | None = field(default=None, repr=False, compare=False)
    """The chunk that was read last."""

    def told(self) -> dict[str, Any]:
        """Return what it is opened by, as JSON holds it."""
        return {
            "dtype": str(self.dtype),
            "shape": list(self.shape),
            "dimensions": list(self.dimensions),
            "compressed": self.compressed,
            "checksums": list(self.checksums),
        }

    @classmethod
    def open(cls, path: Path, told: Mapping[str, Any]) -> ChunkedArray:
        """Return the array that told this. Raises StoreError where its metadata is missing or something else."""
        found = cls(
            path,
            np.dtype(told["dtype"]),
            tuple(told["shape"]),
            tuple(told["dimensions"]),
            told["compressed"],
            tuple(told["checksums"]),
        )
        file = path / METADATA
        with refusing("read", file), undamaged(str(file)):
            if json.loads(text_of(file)) != found.metadata():
                raise ValueError("it is not what was written")
        return found

    @property
    def format(self) -> ChunkFormat:
        """How its chunks are written."""
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        rows = max(1, min(self.shape[0], CHUNK_BYTES // max(1, row)))
        return ChunkFormat(self.dtype, (rows, *self.shape[1:]), 0, self.compressed)

    def metadata(self) -> dict[str, Any]:
        """Return its zarr.json."""
        return {
            "shape": list(self.shape),
            "data_type": str(self.dtype),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.format.shape)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": SEPARATOR}},
            "fill_value": 0,
            "codecs": self.format.metadata(),
            "attributes": {},
            "dimension_names": list(self.dimensions),
            "zarr_format": 3,
            "node_type": "array",
            "storage_transformers": [],
        }

    def __getitem__(self, where: slice, /) -> NDArray[Any]:
        """Return consecutive rows, not to be written to. Raises StoreError for a chunk that is not what was written."""
        start, stop, _ = where.indices(self.shape[0])
        rows = self.format.shape[0]
        if start < stop and start // rows == (stop - 1) // rows:
            first = start // rows * rows
            return self._chunk(start // rows)[start - first : stop - first]
        found = np.empty((max(0, stop - start), *self.shape[1:]), dtype=self.dtype)
        for number in range(start // rows, -(-stop // rows) if stop > start else 0):
            first = number * rows
            begin, end = max(start, first), min(stop, first + rows)
            found[begin - start : end - start] = self._chunk(number)[begin - first : end - first]
        return found

    def check(self) -> None:
        """Read all of it. Raises StoreError as reading does."""
        for number in range(len(self.checksums)):
            self._chunk(number)

    def file(self, number: int) -> Path:
        """Return the file of a chunk."""
        return self.path / SEPARATOR.join(["c", str(number), *["0"] * (len(self.shape) - 1)])

    def _chunk(self, number: int) -> NDArray[Any]:
        if self._last is None or self._last[0] != number:
            file = self.file(number)
            with refusing("read", file):
                content = read_plain(file)
            if checksum_of(content) != self.checksums[number]:
                raise StoreError(f"{file} is damaged: it is not what was written")
            try:
                self._last = number, self.format.decode(content)
            except CodecError as error:
                raise StoreError(f"{file} is damaged: {error}") from error
        return self._last[1]


def write_array(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    dimensions: tuple[str, ...],
    blocks: Iterable[NDArray[Any]],
    *,
    compressed: bool,
) -> ChunkedArray:
    """Write an array whose consecutive rows `blocks` are, in a new folder; nothing is synced.

    Raises ValueError where they are not as many rows as the shape says.
    """
    made = ChunkedArray(path, dtype, shape, dimensions, compressed, ())
    format_ = made.format
    checksums: list[int] = []
    path.mkdir()
    waiting: list[NDArray[Any]] = []

    def write(last: bool) -> None:
        rows = np.concatenate(waiting)
        waiting.clear()
        size = format_.shape[0]
        stop = len(rows) if last else len(rows) // size * size
        for start in range(0, stop, size):
            content = format_.encode(rows[start : min(start + size, stop)])
            create_file(made.file(len(checksums)), content)
            checksums.append(checksum_of(content))
        if stop < len(rows):
            waiting.append(rows[stop:])

    seen = 0
    for block in blocks:
        waiting.append(block)
        seen += len(block)
        if sum(map(len, waiting)) >= format_.shape[0]:
            write(last=False)
    if waiting:
        write(last=True)
    if seen != shape[0]:
        raise ValueError(f"{path.name} was given {seen} rows, expected {shape[0]}")
    made.checksums = tuple(checksums)
    create_file(path / METADATA, json.dumps(made.metadata(), indent=2).encode())
    return made
