"""What a small file holds, or one line that says what is wrong with it and what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator.store import side_files
from orchestrator.store.side_files import read_file, read_json
from workers.errors import StoreError


class Pair(BaseModel):
    a: int
    b: dict[str, int]


def raising(error: Exception) -> Callable[[Any], Any]:
    def parse(content: Any) -> Any:
        raise error

    return parse


def test_what_is_there_is_parsed_and_what_is_not_is_none(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    assert read_json(path, "make it anew", Pair.model_validate) is None
    assert read_file(path, "make it anew", len) is None
    path.write_text('{"a": 1, "b": {"c": 2}}')
    assert read_json(path, "make it anew", Pair.model_validate) == Pair(a=1, b={"c": 2})
    assert read_file(path, "make it anew", len) == 23


@pytest.mark.parametrize(
    ("parse", "reason"),
    [
        (raising(KeyError("x")), "KeyError: 'x'"),
        (raising(RecursionError()), "RecursionError"),
        (raising(ValueError("  one line\nand another ")), "ValueError: one line"),
        (lambda _: Pair.model_validate({"a": 1, "b": {"c": "x"}}), "b.c: Input should be a valid integer"),
        (lambda _: Pair.model_validate({"a": "y", "b": {"c": "x"}}), "a: Input should be a valid integer"),
        (lambda _: Pair.model_validate(3), "all of it: Input should be a valid dictionary"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, parse: Callable[[Any], Any], reason: str) -> None:
    path = tmp_path / "one.json"
    path.write_text("[1]")
    for read in (read_file, read_json):
        with pytest.raises(StoreError) as caught:
            read(path, "make it anew", parse)
        said = str(caught.value)
        assert said.startswith(f"{path} is damaged ({reason}")
        assert said.endswith("): make it anew")
        assert "\n" not in said


def test_text_that_is_no_json_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text("{")
    with pytest.raises(StoreError, match=r"is damaged \(JSONDecodeError: Expecting .*\): make it anew$"):
        read_json(path, "make it anew", dict)


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match=rf"^{tmp_path} is no plain file: make it anew$"):
        read_file(tmp_path, "make it anew", bytes)
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(StoreError, match=r"link is a link: .*: make it anew$"):
        read_file(tmp_path / "link", "make it anew", bytes)
    for error, said in ((PermissionError(13, "Permission denied"), "Permission denied"), (PermissionError("no"), "no")):
        monkeypatch.setattr(side_files, "read_plain", raising(error))
        with pytest.raises(StoreError, match=rf"^{tmp_path / 'x'} cannot be read \({said}\): make it anew$"):
            read_file(tmp_path / "x", "make it anew", bytes)


def test_json_is_read_whatever_it_is(tmp_path: Path) -> None:
    for value in ([1, "λ"], None, 0.5):
        (tmp_path / "one.json").write_text(json.dumps(value))
        assert read_json(tmp_path / "one.json", "", lambda plain: (plain,)) == (value,)
