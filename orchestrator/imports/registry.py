"""The formats that can be imported. A new one is a file with `detect` and `read`, named here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.imports import (
    bergson,
    dattri,
    dattri_truth,
    diffusion,
    kept_indices,
    memmaps,
    packed,
    pairs,
    quanda,
    tensors,
)
from orchestrator.imports.foreign_runs import ForeignRuns
from workers.errors import DataError

Detect = Callable[[Path], bool]
"""Says whether a source looks like a format."""
Read = Callable[[Path, str | None, int | None], ForeignRuns]
"""Reads a source, given the name of its outputs and the number of examples where the user told them."""

FORMATS: tuple[tuple[Detect, Read], ...] = (
    (dattri_truth.detect, dattri_truth.read),
    (dattri.detect, dattri.read),
    (bergson.detect, bergson.read),
    (quanda.detect, quanda.read),
    (diffusion.detect, diffusion.read),
    (packed.detect, packed.read),
    (kept_indices.detect, kept_indices.read),
    (pairs.detect, pairs.read),
    (memmaps.detect, memmaps.read),
    (tensors.detect, tensors.read),
)
"""In the order in which they are tried."""


def read(source: Path, outputs: str | None = None, n: int | None = None) -> ForeignRuns:
    """Return the runs of a source: a folder or a file; `outputs` names their outputs, `n` the number of examples.

    Raises DataError, one line with the counts, for anything that does not fit together; ConfigError for what only the user can
    tell and did not.
    """
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder")
    for detect, reader in FORMATS:
        if detect(source):
            runs = reader(source, outputs, n)
            if n is not None and runs.n != n:
                raise DataError(f"--n {n}: the masks of {source} are of {runs.n} examples")
            return runs
    raise DataError(
        f"{source}: is none of the formats that can be read: a folder with *mask*.npy or *mask*.pt, a masks file, "
        "a folder with <i>/indices.txt, indices_lds.pt, subsets.json, lds_subsets.yaml or sub_idx_<k>.csv, a .parquet file of "
        "(run, example) pairs"
    )
