"""Parquet: a table of (run, example) pairs, and the outputs as a table (long or wide) or as an array.

pairs     run, example                       a row for every example that a run was trained on
outputs   run, query, value                  long; or
          run, and a column a query          wide, queries in the order of the columns; or
          a .npy or .pt array (runs, t)      whose row number is the run
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from orchestrator.imports.files import SUFFIXES, open_array, outputs_file
from orchestrator.imports.foreign_runs import ForeignRuns
from orchestrator.imports.sparse_masks import Indices, SparseMasks
from workers.errors import ConfigError, DataError

LONG = {"run", "query", "value"}


def detect(source: Path) -> bool:
    """Say whether a source looks like this."""
    return source.is_file() and source.suffix == ".parquet"


def read(source: Path, outputs: str | None, n: int | None) -> ForeignRuns:
    """Return the runs that both tables speak of; they must be the same ones. Raises DataError, ConfigError."""
    if n is None:
        raise ConfigError(f"{source}: pairs do not say how many training examples there were; give --n")
    if outputs is None:
        raise ConfigError(f"{source}: name the outputs of these runs with --outputs")
    runs, masks = _pairs(source, n)
    found = outputs_file(source, source, outputs, (".parquet", *SUFFIXES))
    rows, values = _array(found) if found.suffix in SUFFIXES else _table(found)
    _refuse_unmatched(source, found, runs, rows)
    every = np.arange(len(runs))
    return ForeignRuns("(run, example) pairs", str(source), found, masks, values, every, np.searchsorted(rows, runs))


def _pairs(path: Path, n: int) -> tuple[Indices, SparseMasks]:
    """Return the runs, ascending, and the masks."""
    table = _read(path, {"run", "example"})
    run, example = _integers(path, table, "run"), _integers(path, table, "example")
    order = np.lexsort((example, run))
    run, example = run[order], example[order]
    twice = int(((np.diff(run) == 0) & (np.diff(example) == 0)).sum())
    if twice:
        raise DataError(f"{path}: {twice} of its {len(run)} pairs are there twice")
    runs, starts = np.unique(run, return_index=True)
    masks = SparseMasks(example, np.append(starts, len(run)).astype(np.int64), n)
    masks.refuse_outside(str(path))
    return runs, masks


def _table(path: Path) -> tuple[Indices, NDArray[Any]]:
    """Return the runs, ascending, and their outputs (runs, t); NaN where a long table has no row."""
    table = _read(path, {"run"})
    return _long(path, table) if set(table.column_names) >= LONG else _wide(path, table)


def _long(path: Path, table: pyarrow.Table) -> tuple[Indices, NDArray[Any]]:
    runs, row = np.unique(_integers(path, table, "run"), return_inverse=True)
    query = _integers(path, table, "query")
    known = np.unique(query)
    if known[0] != 0 or known[-1] != len(known) - 1:
        raise DataError(f"{path}: has {len(known)} queries from {known[0]} to {known[-1]}, expected 0..t-1")
    twice = len(query) - len(np.unique(row * len(known) + query))
    if twice:
        raise DataError(f"{path}: {twice} of its {len(query)} rows name a (run, query) a second time")
    values = np.full((len(runs), len(known)), np.nan, dtype=np.float32)
    values[row, query] = _numbers(path, table, "value")
    return runs, values


def _wide(path: Path, table: pyarrow.Table) -> tuple[Indices, NDArray[Any]]:
    queries = [name for name in table.column_names if name != "run"]
    if not queries:
        raise DataError(f"{path}: has no outputs beside the column 'run'")
    runs, order = np.unique(_integers(path, table, "run"), return_index=True)
    if len(runs) != table.num_rows:
        raise DataError(f"{path}: {table.num_rows - len(runs)} of its {table.num_rows} rows name a run a second time")
    return runs, np.stack([_numbers(path, table, name) for name in queries], axis=1)[order]


def _array(path: Path) -> tuple[Indices, NDArray[Any]]:
    values = open_array(path)
    if values.ndim != 2:
        raise DataError(f"{path}: has shape {values.shape}, expected (runs, queries)")
    return np.arange(len(values)), values


def _read(path: Path, wanted: set[str]) -> pyarrow.Table:
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    if not wanted <= set(table.column_names) or not table.num_rows:
        raise DataError(
            f"{path}: expected rows with the columns {', '.join(sorted(wanted))}, found {table.num_rows} rows with "
            f"{', '.join(table.column_names) or 'none'}"
        )
    return table


def _integers(path: Path, table: pyarrow.Table, name: str) -> Indices:
    column = table.column(name)
    if not pyarrow.types.is_integer(column.type) or column.null_count:
        raise DataError(f"{path}: column {name!r} is {column.type} with {column.null_count} nulls, expected integers")
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _numbers(path: Path, table: pyarrow.Table, name: str) -> NDArray[np.float32]:
    """Return a column as float32, NaN for nulls."""
    column = table.column(name)
    if not (pyarrow.types.is_floating(column.type) or pyarrow.types.is_integer(column.type)):
        raise DataError(f"{path}: column {name!r} is {column.type}, expected numbers")
    return np.asarray(column.to_numpy(), dtype=np.float32)


def _refuse_unmatched(source: Path, outputs: Path, paired: Indices, measured: Indices) -> None:
    """Raise DataError, with the counts, unless pairs and outputs are of the same runs."""
    unmeasured, unpaired = np.setdiff1d(paired, measured), np.setdiff1d(measured, paired)
    if len(unmeasured) or len(unpaired):
        first = f", such as run {np.concatenate([unmeasured, unpaired])[0]}"
        raise DataError(
            f"{source}: {len(unmeasured)} of its {len(paired)} runs have no outputs, and {len(unpaired)} of the {len(measured)} "
            f"runs of {outputs.name} have no pairs{first}"
        )
