"""A chunk as the bytes of its file: the codecs that the array's zarr.json names, called one after the other.

Zarr does the same through an event loop and threads, which take ten times as long as decoding does; and it gives a file its name
before its bytes are on the disk. What lies there is what Zarr would write, and Zarr reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray

LEVEL = 3
"""Level of compression."""
_CHECKSUM_BYTES = 4
_RESIDUE = google_crc32c.value(bytes(_CHECKSUM_BYTES))
"""The checksum of any bytes with their own checksum behind them: no part of a chunk is copied to be checked."""
MOST_PER_BYTE = 2**15
"""Bytes that one byte of zstd can stand for: at best a block of 4 bytes says 128 KiB."""


class CodecError(ValueError):
    """Stored bytes that do not decode."""


@dataclass(frozen=True)
class ChunkFormat:
    """How the chunks of one array are written: [bits,] [zstd,] crc32c over the bytes as they lie on the disk."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """(rows, ...) of a whole chunk."""
    fill: Any
    """What stands in rows that are beyond the array's end."""
    compressed: bool = True
    """By zstd; not where numbers look random, and are to be read as fast as they can be."""

    def codecs(self) -> tuple[str, ...]:
        """Return what zarr.json must name, in this order."""
        return tuple(codec["name"] for codec in self.metadata())

    def metadata(self) -> list[dict[str, Any]]:
        """Return what zarr.json says of the codecs; the checksum is outermost: it covers the bytes as they lie on the disk."""
        packed = self.dtype == np.bool_
        bits: list[dict[str, Any]] = [{"name": "numcodecs.packbits", "configuration": {}}] if packed else []
        plain = {"name": "bytes"} if packed else {"name": "bytes", "configuration": {"endian": "little"}}
        zstd = {"name": "zstd", "configuration": {"level": LEVEL, "checksum": False}}
        return [*bits, plain, *([zstd] if self.compressed else []), {"name": "crc32c"}]

    def encode(self, values: NDArray[Any]) -> bytes:
        """Return the bytes of a chunk that holds `values` (r, ...), r up to the chunk's rows, and fill below them."""
        whole = np.full(self.shape, self.fill, dtype=self.dtype)
        whole[: len(values)] = values
        plain = _packed(whole) if self.dtype == np.bool_ else _little(whole)
        content = bytes(Zstd(level=LEVEL).encode(plain)) if self.compressed else plain.tobytes()
        checksum: int = google_crc32c.value(content)
        return content + checksum.to_bytes(_CHECKSUM_BYTES, "little")

    def decode(self, content: bytes) -> NDArray[Any]:
        """Return a chunk's values, of its whole shape. Raises CodecError for bytes that do not decode.

        Nothing larger than the chunk is allocated, whatever the bytes say, and nothing at all for too few bytes. Good bytes of
        a smaller chunk come with zeros at the end: only the rows' hashes tell them.
        """
        if len(content) < _CHECKSUM_BYTES or google_crc32c.value(content) != _RESIDUE:
            raise CodecError("its checksum does not agree")
        packed, count = self.dtype == np.bool_, math.prod(self.shape)
        size = 1 + -(-count // 8) if packed else count * self.dtype.itemsize
        plain = _decompressed(content, size) if self.compressed else _as_they_are(content)
        if len(plain) != size:
            raise CodecError(f"it has {len(plain):,} bytes, expected the {size:,} of a chunk")
        little = self.dtype.newbyteorder("<")
        values = _unpacked(plain, count) if packed else plain.view(little).astype(self.dtype, copy=False)
        return values.reshape(self.shape)


def checksum_of(content: bytes) -> int:
    """Return the checksum that a chunk's bytes end with."""
    return int.from_bytes(content[-_CHECKSUM_BYTES:], "little")


def _as_they_are(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, dtype=np.uint8)[:-_CHECKSUM_BYTES]


def _decompressed(content: bytes, size: int) -> NDArray[np.uint8]:
    stored = content[:-_CHECKSUM_BYTES]
    if size > len(stored) * MOST_PER_BYTE:
        raise CodecError(f"it has {len(stored):,} bytes, too few for the {size:,} of a chunk")
    plain = np.zeros(size, dtype=np.uint8)
    try:
        Zstd().decode(stored, plain)
    except (ValueError, RuntimeError) as error:
        raise CodecError(f"it does not decompress: {error}") from error
    return plain


def _little(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))


def _packed(values: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return one byte that says how many bits pad the last byte, then the bits, the highest of each byte first."""
    return np.concatenate([np.array([-values.size % 8], dtype=np.uint8), np.packbits(values, axis=None)])


def _unpacked(plain: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    if plain[0] != -count % 8:
        raise CodecError(f"its bits are padded by {plain[0]}, expected {-count % 8}")
    return np.unpackbits(plain[1:], count=count).view(np.bool_)
