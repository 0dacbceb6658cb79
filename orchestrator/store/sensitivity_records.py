"""Sensitivities recorded during a training, beside the sweep's checkpoints: one safetensors file a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.durable import make_folder, refusing, write_atomically
from orchestrator.store.plain_files import read_plain
from workers.errors import StoreError

if TYPE_CHECKING:
    from estimators.sensitivity.recorder import Record

KEYS = ("epoch", "step", "magnitudes", "self_influence", "training_loss", "left_out_loss", "seconds")
"""The arrays of a file, by name: k moments, n examples; (k, n) of magnitudes and self_influence, (k,) of the others."""


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write the records of one training, durably. Raises StoreError for none."""
    from safetensors.numpy import save

    if not records:
        raise StoreError(f"{path}: no sensitivities were recorded, expected at least one moment")
    arrays = {key: np.array([getattr(one, key) for one in records]) for key in KEYS}
    make_folder(path.parent)
    write_atomically(path, save(arrays))


def read_records(path: Path) -> Mapping[str, NDArray[np.generic]]:
    """Return the arrays of a file by name. Raises StoreError where it is missing, or no such file."""
    from safetensors.numpy import load

    with refusing("read", path):
        content = read_plain(path)
    try:
        arrays = load(content)
    except Exception as error:  # whatever a parser meets in a stranger's bytes
        raise StoreError(f"{path} holds no sensitivities: {str(error).splitlines()[0]}") from error
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise StoreError(f"{path} holds no sensitivities: {missing[0]} is missing")
    return arrays
