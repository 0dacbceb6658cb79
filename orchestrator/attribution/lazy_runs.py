"""Runs of a design that is too large to be held: read from the store block by block, each time anew."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore

GAP = 64
"""Rows between two wanted ones that are rather read than skipped."""


class LazyRuns(Runs):
    """The finished rows of a design in a sweep's folder. It can travel to another process that sees the folder.

    `masks` and `outputs` are read whole by whoever asks for them; `blocks` never holds more than one block.
    """

    def __init__(self, folder: Path | None = None, rows: NDArray[np.int64] | None = None, **fields: Any):
        """Take all fields of Runs but masks and outputs; given these too, it is a plain Runs (dataclasses.replace)."""
        for name, value in {
            "permutations": None,
            "antithetic": False,
            **fields,
            "folder": folder,
            "rows": rows,
        }.items():
            object.__setattr__(self, name, value)

    folder: Path | None
    rows: NDArray[np.int64] | None

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """(m, n) bool."""
        return np.concatenate([masks for masks, _ in self.blocks()])

    @cached_property
    def outputs(self) -> NDArray[np.float32]:
        """(m, t) float32."""
        return np.concatenate([outputs for _, outputs in self.blocks()])

    def blocks(
        self, rows: int = 4096, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float32]]]:
        """Yield masks (b, n) and outputs (b, t) of the runs start..stop, at most `rows` at a time."""
        if self.folder is None or self.rows is None:
            yield from super().blocks(rows, start, stop)
            return
        with RunStore.open(SweepPaths(self.folder)) as store, store.snapshot():
            wanted = self.rows[start:stop]
            for first in range(0, len(wanted), rows):
                yield _read(store, self.design, self.measure, wanted[first : first + rows])

    def __getstate__(self) -> dict[str, Any]:
        """Leave what was read behind: it is read again where it is wanted."""
        left = {"masks", "outputs"} if self.folder is not None else set()
        return {name: value for name, value in self.__dict__.items() if name not in left}


def _read(
    store: RunStore, design: str, measure: str, rows: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Read ascending rows, in stretches without large gaps."""
    masks = np.empty((len(rows), store.n), dtype=bool)
    outputs = np.empty((len(rows), store.t), dtype=np.float32)
    cuts = np.flatnonzero(np.diff(rows) > GAP) + 1
    for part in np.split(np.arange(len(rows)), cuts):
        first, last = int(rows[part[0]]), int(rows[part[-1]]) + 1
        masks[part] = store.masks(design, first, last)[rows[part] - first]
        outputs[part] = store.outputs(design, measure, first, last)[rows[part] - first]
    return masks, outputs
