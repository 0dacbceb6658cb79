"""The runs of a design as xarray has them: nothing is read before it is looked at, and then only the rows asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from orchestrator.attribution.lazy_runs import stretches
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore

Read = Callable[[RunStore, int, int], NDArray[Any]]
"""Reads rows start..stop of one array."""


class Reader:
    """The store of a sweep's folder, opened when it is first asked for: it remembers which rows it has checked.

    Copies share it; another process opens its own.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    @cached_property
    def store(self) -> RunStore:
        """The store, open for reading."""
        return RunStore.open(SweepPaths(self._folder))

    def __deepcopy__(self, memo: dict[int, Any]) -> Reader:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder}


class StoredRows(BackendArray):
    """Some rows of one array of a design, read from the sweep's folder each time that they are asked for."""

    def __init__(self, reader: Reader, rows: NDArray[np.int64], columns: int | None, dtype: Any, read: Read):
        """Take which rows, ascending; how many columns there are, None for an array of one dimension."""
        self._reader, self._rows, self._read = reader, rows, read
        self.dtype = np.dtype(dtype)
        self.shape = (len(rows),) if columns is None else (len(rows), columns)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        """Return what xarray asks for by any of its indexers."""
        found: NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._select
        )
        return found

    def _select(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Return rows, and of them columns, each chosen by a number, a slice or an array."""
        wanted = self._rows[key[0]]
        order = np.argsort(np.atleast_1d(wanted), kind="stable")
        rows = np.atleast_1d(wanted)[order]
        found = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        if len(rows):
            store = self._reader.store
            with store.snapshot():
                for part, first, last in stretches(rows):
                    found[order[part]] = self._read(store, first, last)[rows[part] - first]
        chosen = found if np.ndim(wanted) else found[0]
        if len(key) == 1:
            return chosen
        selected: NDArray[Any] = chosen[..., key[1]]
        return selected


def _outputs(design: str, measure: str, store: RunStore, start: int, stop: int) -> NDArray[np.float32]:
    return store.outputs(design, measure, start, stop)


def _planned(design: str, array: str, store: RunStore, start: int, stop: int) -> NDArray[Any]:
    found: NDArray[Any] = getattr(store, array)(design, start, stop)
    return found


def runs_dataset(store: RunStore, design: str, examples: NDArray[np.int64], queries: NDArray[np.int64]) -> xr.Dataset:
    """Return the finished runs of a design; `examples` (n,) and `queries` (t,) are the coordinates of those dimensions."""
    rows = store.finished(design)
    layout, reader = store.designs[design], Reader(store.paths.root)

    def variable(dimensions: tuple[str, ...], columns: int | None, dtype: Any, read: Read) -> xr.Variable:
        lazy = indexing.LazilyIndexedArray(StoredRows(reader, rows, columns, dtype, read))
        return xr.Variable(dimensions, lazy)

    variables = {
        "masks": variable(("run", "example"), store.n, bool, partial(_planned, design, "masks")),
        "seeds": variable(("run",), None, np.uint32, partial(_planned, design, "seeds")),
        "subsets": variable(("run",), None, np.int64, partial(_planned, design, "subsets")),
        "repeats": variable(("run",), None, np.int32, partial(_planned, design, "repeats")),
    }
    if layout.weighted:
        read = partial(_planned, design, "weights")
        variables["weights"] = variable(("run", "example"), store.n, np.float32, read)
    for measure in store.measures:
        variables[measure] = variable(("run", "query"), store.t, np.float32, partial(_outputs, design, measure))
    return xr.Dataset(
        variables,
        coords={"run": rows, "example": examples, "query": queries},
        attrs={"design": design, "kind": layout.kind, "purpose": layout.purpose, "folder": str(store.paths.root)},
    )
