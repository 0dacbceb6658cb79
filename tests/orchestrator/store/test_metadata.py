"""What a zarr.json may say, and one line that names the file for all that it may not."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.metadata import (
    ArrayMetadata,
    read_attributes,
    resize,
    undamaged,
    write_attributes,
    write_metadata,
)
from workers.errors import StoreError

ARRAY: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "data_type": "float32",
    "shape": [10, 3],
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 3]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
    "codecs": [{"name": "bytes"}, {"name": "zstd"}],
    "attributes": {"kept": 1},
}
GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {"a": 1}}


def test_an_array_is_what_it_says(tmp_path: Path) -> None:
    write_metadata(tmp_path, ARRAY)
    found = ArrayMetadata.read(tmp_path)
    assert found == ArrayMetadata("float32", (10, 3), (4, 3), ("bytes", "zstd"), ".")
    assert found.nbytes == 120
    resize(tmp_path, 12)
    assert json.loads((tmp_path / "zarr.json").read_text()) == {**ARRAY, "shape": [12, 3]}


def test_a_group_has_attributes_or_none(tmp_path: Path) -> None:
    write_metadata(tmp_path, {**GROUP, "more": [1]})
    assert read_attributes(tmp_path) == {"a": 1}
    write_attributes(tmp_path, {"b": 2})
    assert json.loads((tmp_path / "zarr.json").read_text()) == {**GROUP, "attributes": {"b": 2}, "more": [1]}
    write_metadata(tmp_path, {"zarr_format": 3, "node_type": "group"})
    assert read_attributes(tmp_path) == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"zarr_format": 2}, "it is no Zarr v3 array"),
        ({"node_type": "group"}, "it is no Zarr v3 array"),
        ({"shape": []}, r"\[\] is no shape"),
        ({"shape": [10, 0]}, r"\[10, 0\] is no shape"),
        ({"shape": [10, True]}, r"\[10, True\] is no shape"),
        ({"shape": [10, 3.0]}, r"\[10, 3.0\] is no shape"),
        ({"shape": "10"}, "'10' is no shape"),
        ({"shape": [10]}, "its chunks are not those of its shape"),
        ({"chunk_key_encoding": {"configuration": {"separator": "-"}}}, "its chunks are not those of its shape"),
        ({"chunk_key_encoding": {}}, "'configuration'"),
        ({"data_type": "nothing"}, "data type 'nothing' not understood"),
        ({"codecs": None}, "'NoneType' object is not iterable"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write_metadata(tmp_path, {**ARRAY, **changes})
    with pytest.raises(StoreError, match=rf"^{tmp_path / 'zarr.json'} is damaged: {said}$") as caught:
        ArrayMetadata.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "other"),
    [
        (read_attributes, ARRAY),
        (lambda path: write_attributes(path, {}), ARRAY),
        (ArrayMetadata.read, GROUP),
        (lambda path: resize(path, 3), GROUP),
    ],
)
def test_what_is_not_there_or_is_something_else_is_refused(tmp_path: Path, ask: Any, other: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match=rf"^cannot read {tmp_path / 'zarr.json'}: No such file or directory$"):
        ask(tmp_path)
    write_metadata(tmp_path, other)
    with pytest.raises(StoreError, match=r"is damaged: it is no Zarr v3 (array|group)$"):
        ask(tmp_path)
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="is damaged: Expecting"):
        ask(tmp_path)


def test_either_separator_is_known(tmp_path: Path) -> None:
    for separator in (".", "/"):
        write_metadata(tmp_path, {**ARRAY, "chunk_key_encoding": {"configuration": {"separator": separator}}})
        assert ArrayMetadata.read(tmp_path).separator == separator


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError(" first \nsecond"), "this is damaged: first"),
        (RecursionError(), "this is damaged: RecursionError"),
        (KeyError("a"), "this is damaged: 'a'"),
        (StoreError("that"), "that"),
    ],
)
def test_whatever_goes_wrong_is_one_line(error: Exception, said: str) -> None:
    with pytest.raises(StoreError) as caught, undamaged("this"):
        raise error
    assert str(caught.value).rstrip() == said


def test_what_the_disk_says_is_left_to_others() -> None:
    with pytest.raises(FileNotFoundError), undamaged("this"):
        raise FileNotFoundError
