"""Tensors, as kronfluence's examples keep them: masks.pt (s, n) and margins.pt (s, t) or (s, seeds, t)."""

from __future__ import annotations

from pathlib import Path

from orchestrator.imports.files import masks_file, open_array, outputs_file
from orchestrator.imports.foreign_runs import ForeignRuns, match


def detect(source: Path) -> bool:
    """Say whether a source looks like this."""
    return source.suffix == ".pt" if source.is_file() else any("mask" in path.stem for path in source.glob("*.pt"))


def read(source: Path, outputs: str | None, n: int | None) -> ForeignRuns:
    """Return the runs of a folder of .pt files, or of a masks file. Raises DataError."""
    masks = masks_file(source, ".pt")
    return match("tensors", source, open_array(masks), outputs_file(source, masks, outputs))
