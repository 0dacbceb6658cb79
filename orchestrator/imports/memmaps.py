"""MadryLab's datamodels (and any pair of .npy files): masks (m, n), outputs (m, t), and `_completed` (m,) beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orchestrator.imports.files import masks_file, open_array, outputs_file
from orchestrator.imports.foreign_runs import ForeignRuns, match
from workers.errors import DataError

COMPLETED = "_completed.npy"


def detect(source: Path) -> bool:
    """Say whether a source looks like this."""
    return source.suffix == ".npy" if source.is_file() else any(source.glob("*.npy"))


def read(source: Path, outputs: str | None, n: int | None) -> ForeignRuns:
    """Return the runs of a folder of .npy files, or of a masks file. Raises DataError."""
    masks = masks_file(source, ".npy")
    flags = masks.parent / COMPLETED
    completed = None
    if flags.is_file():
        completed = np.asarray(open_array(flags)).astype(bool)
        if completed.ndim != 1:
            raise DataError(f"{flags}: has shape {completed.shape}, expected one flag a run")
    label = "datamodels memmaps" if completed is not None else ".npy arrays"
    return match(label, source, open_array(masks), outputs_file(source, masks, outputs), completed)
