"""Masks as packed bits, eight examples a byte, as `numpy.packbits(masks, axis=1)` makes them.

packed_masks.npy    (m, ceil(n / 8)) uint8; bits beyond the last example are 0
packed_masks.json   {"n": ..., "bitorder": "big"}; without it, give --n
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.imports.files import declared_n, open_array, outputs_file
from orchestrator.imports.foreign_runs import ForeignRuns, match
from orchestrator.imports.sparse_masks import Indices
from workers.errors import DataError

NAME = "packed_masks.npy"


@dataclass(frozen=True)
class PackedMasks:
    """Masks (m, n), eight examples a byte; rows are unpacked when they are read."""

    packed: NDArray[np.uint8]
    """(m, ceil(n / 8))"""
    n: int

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return len(self.packed), self.n

    def __getitem__(self, rows: Indices) -> NDArray[np.bool_]:
        """Return rows (b, n)."""
        return np.unpackbits(self.packed[rows], axis=1, count=self.n).astype(np.bool_)


def detect(source: Path) -> bool:
    """Say whether a source looks like this."""
    return source.name == NAME if source.is_file() else (source / NAME).is_file()


def read(source: Path, outputs: str | None, n: int | None) -> ForeignRuns:
    """Return the runs of such a folder, or of the file in it. Raises DataError, ConfigError."""
    path = source if source.is_file() else source / NAME
    packed = open_array(path)
    examples, about = declared_n(path, n)
    if about.get("bitorder", "big") != "big":
        raise DataError(f"{path.with_suffix('.json')}: says bitorder {about['bitorder']!r}, expected 'big'")
    if packed.ndim != 2 or packed.dtype != np.uint8 or packed.shape[1] != -(-examples // 8):
        raise DataError(
            f"{path}: holds {packed.dtype} {packed.shape}, expected uint8 (runs, {-(-examples // 8)}) for {examples} examples"
        )
    if examples % 8 and (packed[:, -1] & (0xFF >> examples % 8)).any():
        raise DataError(f"{path}: has bits set beyond the last of {examples} examples: is n right?")
    return match("packed masks", source, PackedMasks(packed, examples), outputs_file(source, path, outputs))
