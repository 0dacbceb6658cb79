"""Tables from CSV, TSV or Parquet, as one array a column."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.data.shared import Arrays, existing, is_gz, shared
from workers.errors import DataError


def table(path: str | Path) -> Arrays:
    """Return a CSV, TSV (either perhaps .gz) or Parquet file as one array a column, in the file's order of columns.

    Booleans stay bool, whole numbers become int64 and others float64 (missing: NaN); every other column is an object
    array of str, with None where a value is missing. The header tells the delimiter (comma, tab, semicolon, bar).
    """
    return shared(f"table:{Path(path).absolute()}", lambda: _read_table(existing(path)))


def _read_table(path: Path) -> Arrays:
    import pandas as pd

    kind = path.with_suffix("").suffix if is_gz(path) else path.suffix
    try:
        if kind in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
        elif kind in (".csv", ".tsv", ".txt"):
            frame = pd.read_csv(path, sep=_delimiter(path))
        else:
            raise DataError(f"{path}: unknown kind of table {kind!r}, expected .csv, .tsv, .txt (or .gz) or .parquet")
    except (ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as a table: {(str(error).splitlines() or [''])[0]}") from error
    return {str(name): _column(frame[name]) for name in frame.columns}


def _delimiter(path: Path) -> str:
    """Return the delimiter that splits the header line into the most names."""
    with gzip.open(path, "rt") if is_gz(path) else path.open() as lines:
        header = lines.readline()
    return max(",\t;|", key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def _column(series: Any) -> NDArray[Any]:
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    if not series.hasnans and (is_bool_dtype(series) or is_integer_dtype(series)):
        return np.asarray(series.to_numpy(dtype=bool if is_bool_dtype(series) else np.int64))
    if is_numeric_dtype(series):
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    values = np.empty(len(series), dtype=object)
    values[:] = [None if missing else str(value) for value, missing in zip(series, series.isna(), strict=True)]
    return values
