"""Runs of a design that is too large to be held: read from the store block by block, each time anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore

GAP = 64
"""Rows between two wanted ones that are rather read than skipped."""


@dataclass(frozen=True, kw_only=True)
class LazyRuns(Runs):
    """The finished rows of a design in a sweep's folder. It can travel to another process that sees the folder.

    `masks` and `outputs` are read whole by whoever asks for them, once; `blocks` never holds more than one block.
    """

    masks: NDArray[np.bool_] = field(init=False, repr=False, compare=False)
    outputs: NDArray[np.float32] = field(init=False, repr=False, compare=False)
    folder: Path
    """The sweep's."""
    rows: NDArray[np.int64]
    """(m,) rows of the design in the store, ascending."""
    _whole: dict[str, NDArray[Any]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What was read whole, by name."""
    _readers: list[RunStore] = field(default_factory=list, init=False, repr=False, compare=False)
    """The store, once it is open: it remembers which rows it has checked."""

    def __getattr__(self, name: str) -> Any:
        """Read masks or outputs: they are no attributes of an instance, so that asking for them comes here."""
        if name not in ("masks", "outputs"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name not in self._whole:
            place = ("masks", "outputs").index(name)
            self._whole[name] = np.concatenate([block[place] for block in self.blocks()])
        return self._whole[name]

    def blocks(
        self, rows: int = 4096, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float32]]]:
        """Yield masks (b, n) and outputs (b, t) of the runs start..stop, at most `rows` at a time."""
        if not self._readers:
            self._readers.append(RunStore.open(SweepPaths(self.folder)))
        store = self._readers[0]
        with store.snapshot():
            wanted = self.rows[start:stop]
            for first in range(0, len(wanted), rows):
                yield _read(store, self.design, self.measure, wanted[first : first + rows])

    def __getstate__(self) -> dict[str, Any]:
        """Leave what was read behind, and the open store: it is read again where it is wanted."""
        return {**self.__dict__, "_whole": {}, "_readers": []}


def stretches(rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int, int]]:
    """Yield places in ascending `rows`, at least one, that are read together: the first row there, and the one after the last."""
    cuts = np.flatnonzero(np.diff(rows) > GAP) + 1
    for part in np.split(np.arange(len(rows)), cuts):
        yield part, int(rows[part[0]]), int(rows[part[-1]]) + 1


def _read(
    store: RunStore, design: str, measure: str, rows: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Read ascending rows, in stretches without large gaps."""
    masks = np.empty((len(rows), store.n), dtype=bool)
    outputs = np.empty((len(rows), store.t), dtype=np.float32)
    for part, first, last in stretches(rows):
        masks[part] = store.masks(design, first, last)[rows[part] - first]
        outputs[part] = store.outputs(design, measure, first, last)[rows[part] - first]
    return masks, outputs
