"""Arrays in chunks of rows: what is written is read, by Zarr too, and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from orchestrator.store import chunked_arrays
from orchestrator.store.chunked_arrays import ChunkedArray, write_array
from workers.errors import StoreError

VALUES = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_arrays, "CHUNK_BYTES", 100)  # five rows


def written(path: Path, values: NDArray[Any] = VALUES, rows: int = 7, compressed: bool = False) -> ChunkedArray:
    blocks = (values[start : start + rows] for start in range(0, len(values), rows))
    return write_array(
        path, values.shape, values.dtype, ("example", "query")[: values.ndim], blocks, compressed=compressed
    )


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 5, 7, 23])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_written_is_read_by_us_and_by_zarr(tmp_path: Path, dtype: str, rows: int, compressed: bool) -> None:
    values = VALUES.astype(dtype)
    made = written(tmp_path / "a", values, rows, compressed)
    found = ChunkedArray.open(tmp_path / "a", json.loads(json.dumps(made.told())))
    np.testing.assert_array_equal(found[:], values)
    for where in (slice(0, 0), slice(4, 6), slice(5, 10), slice(20, 99), slice(22, 23), slice(30, 40)):
        np.testing.assert_array_equal(found[where], values[where])
    by_zarr = zarr.open_array(tmp_path / "a", mode="r")
    np.testing.assert_array_equal(by_zarr[:], values)
    assert by_zarr.metadata.dimension_names == ("example", "query")
    found.check()


def test_one_dimension_too(tmp_path: Path) -> None:
    made = written(tmp_path / "a", VALUES[:, 0])
    np.testing.assert_array_equal(made[3:17], VALUES[3:17, 0])
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], VALUES[:, 0])


@pytest.mark.parametrize("count", [22, 24])
def test_other_rows_than_the_shape_says_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match=f"a was given {count} rows, expected 23"):
        write_array(
            tmp_path / "a", (23, 5), VALUES.dtype, ("x", "y"), [np.zeros((count, 5), np.float32)], compressed=False
        )


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("how", ["cut", "gone", "flipped", "swapped", "other"])
def test_damage_is_refused_by_name(tmp_path: Path, how: str, compressed: bool) -> None:
    made = written(tmp_path / "a", compressed=compressed)
    victim = made.file(2)
    content = bytearray(victim.read_bytes())
    if how == "cut":
        os.truncate(victim, len(content) // 2)
    elif how == "gone":
        victim.unlink()
    elif how == "flipped":
        content[7] ^= 1
        victim.write_bytes(content)
    elif how == "swapped":
        shutil.copy(made.file(1), victim)
    else:
        shutil.copy(written(tmp_path / "b", VALUES + 1, compressed=compressed).file(2), victim)
    found = ChunkedArray.open(tmp_path / "a", made.told())
    np.testing.assert_array_equal(found[:10], VALUES[:10])
    for read in (lambda: found[11:12], found.check):
        with pytest.raises(StoreError, match=str(victim)) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["cut", "gone", "edited"])
def test_damaged_metadata_are_refused_by_name(tmp_path: Path, how: str) -> None:
    made = written(tmp_path / "a")
    file = tmp_path / "a" / "zarr.json"
    if how == "cut":
        os.truncate(file, 50)
    elif how == "gone":
        file.unlink()
    else:
        file.write_text(file.read_text().replace("23", "24"))
    with pytest.raises(StoreError, match=str(file)):
        ChunkedArray.open(tmp_path / "a", made.told())


def test_rows_within_a_chunk_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, read = written(tmp_path / "a"), []
    whole = chunked_arrays.read_plain
    monkeypatch.setattr(chunked_arrays, "read_plain", lambda path: read.append(path) or whole(path))
    for row in range(10):
        made[row : row + 1]
    assert read == [made.file(0), made.file(1)]
