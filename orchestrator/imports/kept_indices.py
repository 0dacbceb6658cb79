"""Kept indices as one array: `kept_indices.npy` or `.pt`, (m, k), the examples of each subset.

n stands in `kept_indices.json`, {"n": ...}; without it, give --n.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.imports.files import SUFFIXES, beside, declared_n, open_array, outputs_file
from orchestrator.imports.foreign_runs import ForeignRuns, match
from orchestrator.imports.sparse_masks import SparseMasks
from workers.errors import DataError

STEM = "kept_indices"


def detect(source: Path) -> bool:
    """Say whether a source looks like this."""
    return source.stem == STEM and source.suffix in SUFFIXES if source.is_file() else beside(source, STEM) is not None


def read(source: Path, outputs: str | None, n: int | None) -> ForeignRuns:
    """Return the runs of such a folder, or of the file in it. Raises DataError, ConfigError."""
    path = source if source.is_file() else beside(source, STEM)
    assert path is not None
    examples, _ = declared_n(path, n)
    indices = open_array(path)
    if indices.ndim != 2:
        raise DataError(f"{path}: has shape {indices.shape}, expected (runs, examples kept)")
    masks = SparseMasks.of(list(indices), examples, str(path))
    return match("kept indices", source, masks, outputs_file(source, path, outputs))
