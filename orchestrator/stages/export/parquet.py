"""One Parquet table, a row a run: the subset as the list of its examples, every measure as the list of its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.stages.export.request import Exported, Request

STATES = ("pending", "done", "failed")


def write(request: Request) -> Exported:
    """Write every run, finished or not."""
    import pyarrow as pa  # not needed for the other formats
    from pyarrow import parquet

    store, tables = request.store, []
    for name in store.designs:
        masks = store.masks(name)
        columns = {
            "design": _words(np.zeros(len(masks), np.int8), (name,)),
            "row": _numbers(np.arange(len(masks))),
            "subset": _numbers(store.subsets(name)),
            "repeat": _numbers(store.repeats(name)),
            "seed": _numbers(store.seeds(name)),
            "state": _words(store.states(name), STATES),
            "examples": _lists(np.nonzero(masks)[1].astype(np.int32), masks.sum(axis=1)),
        }
        if any(design.weighted for design in store.designs.values()):
            weights = store.weights(name)
            held = masks.astype(np.float32) if weights is None else weights
            columns["weights"] = _lists(held[masks], masks.sum(axis=1))
        for measure in store.measures:
            outputs = store.outputs(name, measure)
            columns[measure] = _lists(outputs.ravel(), np.full(len(outputs), outputs.shape[1]))
        tables.append(pa.table(columns))
    table = pa.concat_tables(tables)
    parquet.write_table(table, request.target)
    return Exported(int(table.num_rows), "rows")


def _lists(values: NDArray[Any], lengths: NDArray[np.integer]) -> Any:
    """Return an Arrow array of lists: the first `lengths[0]` values, the next `lengths[1]`, and so on."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(_numbers(np.cumsum([0, *lengths], dtype=np.int32)), _numbers(values))


def _words(which: NDArray[np.integer], words: Sequence[str]) -> Any:
    """Return an Arrow array of strings, words[which]."""
    import pyarrow as pa

    encoded = [word.encode() for word in words]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    known = pa.StringArray.from_buffers(len(words), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))
    return pa.DictionaryArray.from_arrays(_numbers(which), known).dictionary_decode()


def _numbers(values: NDArray[Any]) -> Any:
    """Return an Arrow array of the same numbers (k,). `pa.array` would import pandas first, to see whether they are its own."""
    import pyarrow as pa

    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, buffer])
