"""dattri's folder of retrained models: `<i>/indices.txt` says what subset i was; the outputs are an array beside it.

dattri keeps weights, not outputs: what was computed from them is (subsets, t) or (subsets, seeds, t), subsets by number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import loading
from orchestrator.imports.files import outputs_file
from orchestrator.imports.foreign_runs import ForeignRuns, match
from orchestrator.imports.sparse_masks import SparseMasks
from workers.errors import ConfigError, DataError

METADATA = "metadata.yml"


def detect(source: Path) -> bool:
    """Say whether a source looks like this."""
    return source.is_dir() and ((source / METADATA).is_file() or any(source.glob("*/indices.txt")))


def read(source: Path, outputs: str | None, n: int | None) -> ForeignRuns:
    """Return the runs of such a folder; n is read from the metadata where there is any. Raises DataError, ConfigError."""
    folders = sorted((p.parent for p in source.glob("*/indices.txt") if p.parent.name.isdecimal()), key=_number)
    if not folders:
        raise DataError(
            f"{source}: has no folder <i>/indices.txt; of dattri's retrainings those of retrain_lds can be read"
        )
    subsets = [_indices(folder / "indices.txt") for folder in folders]
    masks = SparseMasks.of(subsets, _examples(source, n), str(source))
    return match("dattri retrainings", source, masks, outputs_file(source, None, outputs))


def _number(folder: Path) -> int:
    return int(folder.name)


def _indices(path: Path) -> NDArray[np.int64]:
    try:
        return np.array(path.read_text(encoding="utf-8").split(), dtype=np.int64)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected one index a line: {error}") from error


def _examples(source: Path, n: int | None) -> int:
    """Return n from the metadata (`data_length`), from the user, or from both when they agree."""
    path = source / METADATA
    declared: object = loading.read(path).get("data_length") if path.is_file() else None
    if declared is None:
        if n is None:
            raise ConfigError(f"{source}: does not say how many training examples there were; give --n")
        return n
    if type(declared) is not int or declared < 1:
        raise DataError(f"{path}: data_length: expected the number of training examples, found {declared!r}")
    if n is not None and n != declared:
        raise ConfigError(f"--n {n}: {path} says data_length {declared}")
    return declared
