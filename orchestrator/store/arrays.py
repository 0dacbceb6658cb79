"""The arrays of a run store: their metadata, as Zarr v3 has them, and their chunks, a pack's rows each.

Zarr is not asked: it warns of the codec of masks each time that it meets one, and the filters that would silence it belong to all
threads of the process. What is written here is what Zarr would write, and Zarr reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.chunks import MOST_PER_BYTE, ChunkFormat, CodecError
from orchestrator.store.durable import create_file, refusing
from orchestrator.store.hashes import content_hash
from orchestrator.store.manifest import DesignLayout, Manifest
from orchestrator.store.metadata import METADATA, ArrayMetadata, resize, undamaged
from orchestrator.store.plain_files import read_plain, status_of
from workers.errors import StoreError

PLAN = ("masks", "seeds", "subsets", "repeats")
"""The arrays that say what is to be trained; a weighted design has `weights` too."""


def planned_arrays(design: DesignLayout) -> tuple[str, ...]:
    """Return the names of the arrays that say what is to be trained of a design."""
    return (*PLAN, "weights") if design.weighted else PLAN


SEPARATOR = "."
"""In the names of chunks: one flat folder an array, so that one fsync makes a new chunk's name durable."""


@dataclass(frozen=True)
class Chunk:
    """What a chunk's file held when it was read."""

    values: NDArray[Any]
    """(pack, ...) rows, those beyond the array's end included."""
    hash: str
    """Of the file's bytes."""


@dataclass(frozen=True)
class Unreadable:
    """A chunk that is missing or does not decode."""

    reason: str


@dataclass(frozen=True)
class Spec:
    """Type and shape of one array of a design with m rows."""

    dtype: str
    fill: Any
    columns: int | None = None
    dimension: str = ""
    """Name of the second dimension."""

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape for so many rows."""
        return (rows,) if self.columns is None else (rows, self.columns)

    def chunks(self, design: DesignLayout) -> ChunkFormat:
        """Return how the chunks of a design's array are written."""
        return ChunkFormat(np.dtype(self.dtype), self.shape(design.pack), self.fill)


def specs(manifest: Manifest, design: DesignLayout) -> dict[str, Spec]:
    """Return all arrays of a design, by their path below the design's group."""
    plan = {
        "masks": Spec("bool", False, manifest.n, "example"),
        "seeds": Spec("uint32", 0),
        "subsets": Spec("int64", 0),
        "repeats": Spec("int32", 0),
    }
    if design.weighted:
        plan["weights"] = Spec("float32", 0.0, manifest.n, "example")
    outputs = {f"outputs/{name}": Spec("float32", np.nan, manifest.t, "query") for name in manifest.measures}
    return plan | outputs


def create_tree(path: Path, manifest: Manifest) -> None:
    """Create the whole group at `path`, with no chunk written yet; the folder is new, and nothing is synced."""
    with refusing("create", path):
        _write_node(path, group_metadata(manifest.model_dump(mode="json")))
        for design in manifest.designs:
            folder = path / design.name
            _write_node(folder, group_metadata({"kind": design.kind, "purpose": design.purpose}))
            _write_node(folder / "outputs", group_metadata({}))
            for name, spec in specs(manifest, design).items():
                _write_node(folder / name, array_metadata(spec, design))


def _write_node(folder: Path, metadata: Mapping[str, Any]) -> None:
    folder.mkdir()
    create_file(folder / METADATA, json.dumps(metadata, indent=2).encode())


def group_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the zarr.json of a group."""
    return {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}


def array_metadata(spec: Spec, design: DesignLayout) -> dict[str, Any]:
    """Return the zarr.json of one array of a design, as Zarr would write it."""
    return {
        "shape": list(spec.shape(design.runs)),
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(spec.shape(design.pack))}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": SEPARATOR}},
        "fill_value": "NaN" if spec.fill != spec.fill else spec.fill,
        "codecs": spec.chunks(design).metadata(),
        "attributes": {},
        "dimension_names": ["run", spec.dimension][: len(spec.shape(1))],
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


@dataclass(frozen=True)
class RunArray:
    """One array with a row a run, whose chunks are the packs. What it reads is checked by its checksum and by nothing else."""

    path: Path
    format: ChunkFormat

    @classmethod
    def open(cls, path: Path, spec: Spec, design: DesignLayout) -> RunArray:
        """Open an array. Raises StoreError, naming the file, when its metadata is damaged or not as the manifest says."""
        said, file = ArrayMetadata.read(path), path / METADATA
        chunk = spec.shape(design.pack)
        fits = said.dtype == spec.dtype and said.shape[1:] == chunk[1:] and said.shape[0] >= design.runs
        if not fits or said.chunks != chunk or said.separator != SEPARATOR:
            raise StoreError(
                f"{file} says {said.dtype} {said.shape} in chunks of {said.chunks}, parted by {said.separator!r}; "
                f"expected {spec.dtype} {spec.shape(design.runs)} in chunks of {chunk}, parted by {SEPARATOR!r}"
            )
        made = cls(path, spec.chunks(design))
        if said.codecs != made.format.codecs():
            raise StoreError(
                f"{file} says that chunks are written by {', '.join(said.codecs)}, expected {', '.join(made.format.codecs())}"
            )
        return made

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.format.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its values."""
        return self.format.dtype

    def chunk(self, pack: int) -> Path:
        """Return the file of a pack's chunk."""
        return self.path / ".".join(["c", str(pack), *["0"] * len(self.row_shape)])

    def read(self, pack: int) -> Chunk | Unreadable:
        """Return the rows of a pack, or what is wrong with its chunk. Raises StoreError when the disk refuses."""
        path = self.chunk(pack)
        with refusing("read", path):
            try:
                content = read_plain(path)
            except FileNotFoundError:
                return Unreadable("missing")
        try:
            return Chunk(self.format.decode(content), content_hash(content))
        except CodecError as error:
            return Unreadable(f"damaged: {error}")

    def encode(self, start: int, values: NDArray[Any]) -> dict[Path, bytes]:
        """Return the chunks, by their files, of all rows of one or more packs, the first of which is row `start`."""
        rows = self.format.shape[0]
        return {
            self.chunk((start + at) // rows): self.format.encode(values[at : at + rows])
            for at in range(0, len(values), rows)
        }

    def resize(self, rows: int) -> None:
        """Make room for more rows, durably."""
        resize(self.path, rows)


def read_rows(path: Path, said: ArrayMetadata, *, whole: bool) -> NDArray[np.float32]:
    """Return all of an array of float32 whose chunks are rows; where a chunk is missing it is NaN, unless it is to be `whole`.

    Raises StoreError for chunks that are damaged or missing. Nothing is allocated for an array that is to be whole and cannot be,
    by the sizes of its files.
    """
    format_ = ChunkFormat(np.dtype(np.float32), said.chunks, np.nan)
    if said.dtype != "float32" or said.chunks[1:] != said.shape[1:] or said.codecs != format_.codecs():
        raise StoreError(f"{path / METADATA} says {said}, expected rows of float32 as counterfactory writes them")
    rest = ["0"] * (len(said.shape) - 1)
    starts = range(0, said.shape[0], said.chunks[0])
    files = [path / said.separator.join(["c", str(number), *rest]) for number in range(len(starts))]
    found = {file: status.st_size for file in files if (status := status_of(file)) is not None}
    if whole and (len(found) < len(files) or said.nbytes > sum(found.values()) * MOST_PER_BYTE):
        raise StoreError(
            f"{path} is damaged: {said.nbytes:,} bytes cannot be in its {len(found)} of {len(files)} chunks"
        )
    values = np.full(said.shape, np.nan, dtype=np.float32)
    for start, file in zip(starts, files, strict=True):
        if file in found:
            with refusing("read", file), undamaged(str(file)):
                values[start : start + said.chunks[0]] = format_.decode(read_plain(file))[: said.shape[0] - start]
    return values
