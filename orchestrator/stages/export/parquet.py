"""One Parquet table, a row a run: the subset as the list of its examples, every measure as the list of its outputs."""

from __future__ import annotations

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
            "design": pa.array([name] * len(masks), pa.string()),
            "row": np.arange(len(masks)),
            "subset": store.subsets(name),
            "repeat": store.repeats(name),
            "seed": store.seeds(name),
            "state": pa.array(np.array(STATES)[store.states(name)].tolist(), pa.string()),
            "examples": _lists(np.nonzero(masks)[1].astype(np.int32), masks.sum(axis=1)),
        }
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

    return pa.ListArray.from_arrays(pa.array([0, *np.cumsum(lengths)], pa.int32()), pa.array(values))
