"""Parquet files of a sweep: what a file says of its own size is held against its bytes, before it is read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workers.machine import total_bytes

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_BYTE = 64
"""Rows that a byte of a file can stand for at most: rows that are told apart take about one each."""


def read_parquet(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table in a file's bytes. Raises ValueError, or whatever pyarrow does, where they make no sense."""
    from pyarrow import parquet

    file = parquet.ParquetFile(io.BytesIO(content))
    rows, groups = file.metadata.num_rows, file.metadata.num_row_groups
    if rows > len(content) * ROWS_PER_BYTE:
        raise ValueError(f"it says that {rows:,} rows are in {len(content):,} bytes")
    size = sum(file.metadata.row_group(group).total_byte_size for group in range(groups))
    if size > (memory := total_bytes()):
        raise ValueError(f"it says that it takes {size:,} bytes, and this machine has {memory:,}")
    return file.read(None if columns is None else list(columns))
