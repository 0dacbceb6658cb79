"""Runs and attributions in formats that other programs read: Parquet and NumPy's .npz."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.attributions import list_attributions, read_attribution
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, StoreError

STATES = ("pending", "done", "failed")


def export(sweep: Sweep, store: RunStore, target: Path) -> int:
    """Write the sweep to `target` (.parquet or .npz); return the number of rows or arrays.

    Parquet has one row a run: the subset as the list of its examples, every measure as the list of its outputs. The .npz holds
    masks, seeds, subsets, repeats, states and outputs of every design as arrays, and every attribution.
    """
    if target.suffix not in {".parquet", ".npz"}:
        raise ConfigError(f"--to {target}: expected a name that ends in .parquet or .npz")
    if not target.resolve().parent.is_dir():
        raise StoreError(f"--to {target}: there is no folder {target.resolve().parent}")
    try:
        return _parquet(store, target) if target.suffix == ".parquet" else _npz(sweep, store, target)
    except OSError as error:
        raise StoreError(f"--to {target}: cannot be written: {error}") from error


def _parquet(store: RunStore, target: Path) -> int:
    import pyarrow as pa  # not needed for .npz
    from pyarrow import parquet

    tables = []
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
    parquet.write_table(table, target)
    return int(table.num_rows)


def _lists(values: NDArray[Any], lengths: NDArray[np.integer]) -> Any:
    """Return an Arrow array of lists: the first `lengths[0]` values, the next `lengths[1]`, and so on."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array([0, *np.cumsum(lengths)], pa.int32()), pa.array(values))


def _npz(sweep: Sweep, store: RunStore, target: Path) -> int:
    arrays: dict[str, np.ndarray] = {}
    for name in store.designs:
        arrays |= {
            f"{name}/masks": store.masks(name),
            f"{name}/seeds": store.seeds(name),
            f"{name}/subsets": store.subsets(name),
            f"{name}/repeats": store.repeats(name),
            f"{name}/states": store.states(name),
        }
        for measure in store.measures:
            arrays[f"{name}/outputs/{measure}"] = store.outputs(name, measure)
    for label in list_attributions(sweep.paths):
        arrays[f"attributions/{label}"] = read_attribution(sweep.paths, label).values
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in arrays.items():
            buffer = BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            # Masks shrink to an eighth at any level; floats hardly shrink, and would take most of the time.
            kind = zipfile.ZIP_STORED if np.issubdtype(array.dtype, np.floating) else zipfile.ZIP_DEFLATED
            archive.writestr(f"{name}.npy", buffer.getbuffer(), kind, compresslevel=1)
    return len(arrays)
