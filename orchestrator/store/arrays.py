"""The Zarr arrays of a run store: created, opened, read and written a whole chunk at a time."""

from __future__ import annotations

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

from orchestrator.store.durable import refusing
from orchestrator.store.manifest import DesignLayout, Manifest
from workers.errors import StoreError

PLAN = ("masks", "seeds", "subsets", "repeats")
"""The arrays that say what is to be trained."""
REMEDY = "run `counterfactory verify` on the sweep, then `counterfactory run` to put it right"


class CodecError(StoreError):
    """Stored bytes that do not decode."""


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
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        dimension_names=("run", spec.dimension)[: len(spec.shape(1))],
        # One flat folder an array, so that one fsync makes a new chunk's name durable.
        chunk_key_encoding={"name": "default", "separator": "."},
    )


@dataclass(frozen=True)
class RunArray:
    """One array with a row a run, whose chunks are the packs."""

    path: Path
    array: zarr.Array[Any]
    rows_per_chunk: int

    @classmethod
    def open(cls, path: Path, spec: Spec, design: DesignLayout, write: bool) -> RunArray:
        """Open an array. Raises StoreError, naming the file, when its metadata is damaged or not as the manifest says."""
        with reading_metadata(path), quiet():
            array = zarr.open_array(path, mode="r+" if write else "r", zarr_format=3)
        fits = (
            array.dtype == np.dtype(spec.dtype)
            and array.shape[1:] == spec.shape(0)[1:]
            and array.shape[0] >= design.runs
            and array.chunks == spec.shape(design.pack)
        )
        if not fits:
            raise StoreError(
                f"{path / 'zarr.json'} says {array.dtype} {array.shape} in chunks of {array.chunks}, "
                f"expected {spec.dtype} {spec.shape(design.runs)} in chunks of {spec.shape(design.pack)}"
            )
        # A chunk of nothing but fill is written too: a missing file then always means a missing chunk.
        return cls(path, array.with_config({"write_empty_chunks": True}), design.pack)

    def chunk(self, pack: int) -> Path:
        """Return the file of a pack's chunk."""
        return self.path / ".".join(["c", str(pack), *["0"] * (len(self.array.shape) - 1)])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows start..stop; a missing chunk reads as fill. Raises StoreError naming the first damaged chunk."""
        try:
            return self._read(start, stop)
        except CodecError as error:
            for pack in self._packs(start, stop):
                if isinstance(self.examine(pack), Unreadable) and self.chunk(pack).exists():
                    raise StoreError(f"{self.chunk(pack)} is damaged: {REMEDY}") from error
            raise

    def examine(self, pack: int) -> NDArray[Any] | Unreadable:
        """Return the rows of a pack, or what is wrong with its chunk."""
        if not self.chunk(pack).exists():
            return Unreadable("missing")
        first = pack * self.rows_per_chunk
        try:
            return self._read(first, first + self.rows_per_chunk)
        except CodecError as error:
            return Unreadable(str(error))

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows start..stop. Raises CodecError for bytes that do not decode, StoreError when the disk refuses."""
        with refusing("read", self.path), undamaged(f"rows {start}..{stop - 1} of {self.path}"):
            return np.asarray(self.array[start:stop])

    def _packs(self, start: int, stop: int) -> range:
        return range(start // self.rows_per_chunk, -(-stop // self.rows_per_chunk))

    def missing(self, start: int, stop: int) -> Path | None:
        """Return the first chunk file that is not there, of those that hold rows start..stop."""
        chunks = (self.chunk(pack) for pack in self._packs(start, stop))
        return next((chunk for chunk in chunks if not chunk.exists()), None)

    def write(self, rows: range, values: NDArray[Any]) -> list[Path]:
        """Write all rows of one or more packs; return the chunks' files, which are not yet durable."""
        chunks = [self.chunk(pack) for pack in self._packs(rows.start, rows.stop)]
        with refusing("write", chunks[0]):
            self.array[rows.start : rows.stop] = values
        return chunks

    def resize(self, rows: int) -> None:
        """Make room for more rows."""
        with refusing("write", self.path / "zarr.json"), quiet():
            self.array.resize((rows, *self.array.shape[1:]))


def read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a group. Raises StoreError when its metadata is damaged."""
    with reading_metadata(path):
        return dict(zarr.open_group(path, mode="r", zarr_format=3).attrs)


def write_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of a group."""
    with refusing("write", path / "zarr.json"):
        zarr.open_group(path, mode="r+", zarr_format=3).attrs.put(dict(attributes))


@contextmanager
def reading_metadata(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong with a zarr.json into a one-line StoreError that names the file."""
    metadata = path / "zarr.json"
    with refusing("read", metadata), undamaged(str(metadata)):
        metadata.stat()
        yield


@contextmanager
def undamaged(what: str) -> Iterator[None]:
    """Turn whatever Zarr and its codecs raise of bytes that make no sense into a one-line CodecError."""
    try:
        yield
    except (StoreError, OSError):
        raise
    except Exception as error:  # JSON that is cut off, keys that are gone, checksums, lengths: any class there is
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CodecError(f"{what} is damaged: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Zarr's remark that PackBits is a numcodecs codec; docs/store.md says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3 specification")
        yield
