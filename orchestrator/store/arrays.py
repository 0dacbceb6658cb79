"""The arrays of a run store: their metadata, which Zarr reads and writes, and their chunks, a pack's rows each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.codecs.numcodecs import PackBits

from orchestrator.store.chunks import LEVEL, ChunkFormat, CodecError
from orchestrator.store.durable import refusing, write_atomically
from orchestrator.store.hashes import content_hash
from orchestrator.store.manifest import DesignLayout, Manifest
from workers.errors import StoreError

PLAN = ("masks", "seeds", "subsets", "repeats")
"""The arrays that say what is to be trained."""
METADATA = "zarr.json"


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


def specs(manifest: Manifest) -> dict[str, Spec]:
    """Return all arrays of a design, by their path below the design's group."""
    plan = {
        "masks": Spec("bool", False, manifest.n, "example"),
        "seeds": Spec("uint32", 0),
        "subsets": Spec("int64", 0),
        "repeats": Spec("int32", 0),
    }
    outputs = {f"outputs/{name}": Spec("float32", np.nan, manifest.t, "query") for name in manifest.measures}
    return plan | outputs


def create_tree(path: Path, manifest: Manifest) -> None:
    """Create the whole group at `path`, with no chunk written yet."""
    with refusing("create", path), quiet():
        root = zarr.open_group(path, mode="w-", zarr_format=3)
        for design in manifest.designs:
            group = root.create_group(design.name, attributes={"kind": design.kind, "purpose": design.purpose})
            for name, spec in specs(manifest).items():
                _create(group, name, spec, design)
        root.attrs.update(manifest.model_dump(mode="json"))


def _create(group: zarr.Group, name: str, spec: Spec, design: DesignLayout) -> None:
    group.create_array(
        name,
        shape=spec.shape(design.runs),
        chunks=spec.shape(design.pack),
        dtype=spec.dtype,
        fill_value=spec.fill,
        filters=[PackBits()] if spec.dtype == "bool" else None,
        # The checksum is outermost: it covers the bytes as they lie on the disk.
        compressors=[ZstdCodec(level=LEVEL), Crc32cCodec()],
        dimension_names=("run", spec.dimension)[: len(spec.shape(1))],
        # One flat folder an array, so that one fsync makes a new chunk's name durable.
        chunk_key_encoding={"name": "default", "separator": "."},
    )


@dataclass(frozen=True)
class RunArray:
    """One array with a row a run, whose chunks are the packs. What it reads is checked by its checksum and by nothing else."""

    path: Path
    format: ChunkFormat

    @classmethod
    def open(cls, path: Path, spec: Spec, design: DesignLayout) -> RunArray:
        """Open an array. Raises StoreError, naming the file, when its metadata is damaged or not as the manifest says."""
        with reading_metadata(path), quiet():
            array = zarr.open_array(path, mode="r", zarr_format=3)
            codecs = [str(codec["name"]) for codec in json.loads((path / METADATA).read_bytes())["codecs"]]
        fits = (
            array.dtype == np.dtype(spec.dtype)
            and array.shape[1:] == spec.shape(0)[1:]
            and array.shape[0] >= design.runs
            and array.chunks == spec.shape(design.pack)
        )
        if not fits:
            raise StoreError(
                f"{path / METADATA} says {array.dtype} {array.shape} in chunks of {array.chunks}, "
                f"expected {spec.dtype} {spec.shape(design.runs)} in chunks of {spec.shape(design.pack)}"
            )
        made = cls(path, ChunkFormat(np.dtype(spec.dtype), spec.shape(design.pack), spec.fill))
        if codecs != made.format.codecs():
            raise StoreError(
                f"{path / METADATA} says that chunks are written by {', '.join(codecs)}, expected "
                f"{', '.join(made.format.codecs())}"
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
                content = path.read_bytes()
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
        metadata = self.path / METADATA
        with reading_metadata(self.path):
            content = json.loads(metadata.read_bytes())
            content["shape"][0] = rows
        write_metadata(metadata, content)


def read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a group. Raises StoreError when its metadata is damaged."""
    with reading_metadata(path):
        return dict(zarr.open_group(path, mode="r", zarr_format=3).attrs)


def write_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of a group, durably."""
    with reading_metadata(path):
        content = json.loads((path / METADATA).read_bytes())
        content["attributes"] = dict(attributes)
    write_metadata(path / METADATA, content)


def write_metadata(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a zarr.json; what was there stays until the new one is on the disk."""
    write_atomically(path, json.dumps(content, indent=2).encode())


@contextmanager
def reading_metadata(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong with a zarr.json into a one-line StoreError that names the file."""
    metadata = path / METADATA
    with refusing("read", metadata), undamaged(str(metadata)):
        metadata.stat()
        yield


@contextmanager
def undamaged(what: str) -> Iterator[None]:
    """Turn whatever Zarr and its codecs raise of bytes that make no sense into a one-line StoreError."""
    try:
        yield
    except (StoreError, OSError):
        raise
    except Exception as error:  # JSON that is cut off, keys that are gone, checksums, lengths: any class there is
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StoreError(f"{what} is damaged: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Zarr's remark that PackBits is a numcodecs codec; docs/store.md says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3 specification")
        yield
