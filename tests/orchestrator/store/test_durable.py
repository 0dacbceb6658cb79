import os
from pathlib import Path

import pytest

from orchestrator.store.durable import PARTIAL, folder_at_once, temporary_of
from workers.errors import StoreError


def fill(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "file").write_text(text)


def test_a_folder_takes_its_place_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    final = tmp_path / "above" / "folder"
    for text in ("first", "second"):
        with folder_at_once(final) as temporary:
            assert not temporary.exists()
            assert temporary.name.endswith(PARTIAL)
            fill(temporary, text)
            assert final.exists() == (text == "second")
        assert (final / "file").read_text() == text
        assert os.listdir(final.parent) == ["folder"]


def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path) -> None:
    final = tmp_path / "folder"
    fill(final, "first")

    def cut_off() -> None:
        with folder_at_once(final) as temporary:
            fill(temporary, "second")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert (final / "file").read_text() == "first"
    assert os.listdir(tmp_path) == ["folder"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    final = tmp_path / "folder"
    fill(temporary_of(final), "half")
    with folder_at_once(final) as temporary:
        fill(temporary, "whole")
    assert (final / "file").read_text() == "whole"
    assert os.listdir(tmp_path) == ["folder"]


def test_a_disk_that_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = r"cannot create .*folder.*: No space left on device"
    with pytest.raises(StoreError, match=message), folder_at_once(tmp_path / "folder", "create") as temporary:
        fill(temporary, "whole")
    assert os.listdir(tmp_path) == []


def test_a_move_that_fails_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "folder"
    fill(final, "first")
    rename = os.rename

    def refuse_new(source: Path, target: Path) -> None:
        if source == temporary_of(final):
            raise OSError(1, "Operation not permitted")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_new)
    with pytest.raises(StoreError, match="not permitted"), folder_at_once(final) as temporary:
        fill(temporary, "second")
    assert (final / "file").read_text() == "first"
    assert os.listdir(tmp_path) == ["folder"]
