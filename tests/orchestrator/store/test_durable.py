import os
import shutil
from pathlib import Path

import pytest

from orchestrator.store.durable import (
    PARTIAL,
    folder_at_once,
    is_being_replaced,
    make_folder,
    refusing,
    remove_abandoned,
    remove_at_once,
    remove_file,
    remove_partials,
    sync_tree,
    temporary_of,
    write_atomically,
    write_together,
)
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


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_private_file_is_its_owner_s_and_one_that_was_shared_stays_shared(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        write_atomically(tmp_path / "open", b"")
        write_atomically(tmp_path / "private", b"", private=True)
        assert (mode(tmp_path / "open"), mode(tmp_path / "private")) == (0o644, 0o600)
        for before, private, after in ((0o640, True, 0o640), (0o666, True, 0o666), (0o600, False, 0o644)):
            (tmp_path / "open").chmod(before)
            write_atomically(tmp_path / "open", b"x", private=private)
            assert mode(tmp_path / "open") == after
        (tmp_path / "link").symlink_to(tmp_path / "open")
        write_atomically(tmp_path / "link", b"y", private=True)
        assert not (tmp_path / "link").is_symlink()
        assert (mode(tmp_path / "link"), (tmp_path / "open").read_bytes()) == (0o600, b"x")
    finally:
        os.umask(umask)


def test_files_written_together_are_all_on_the_disk_before_one_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: steps.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(os, "replace", lambda old, new: steps.append(f"-> {new}") or replace(old, new))  # type: ignore[func-returns-value]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    files = {tmp_path / "a/1": b"one", tmp_path / "b/2": b"two", tmp_path / "a/3": b"three"}
    write_together(files)
    assert {path: path.read_bytes() for path in files} == files
    contents, names, folders = steps[:3], steps[3:6], steps[6:]
    assert all(Path(step).name.endswith(PARTIAL) for step in contents)
    assert names == [f"-> {path}" for path in files]
    assert sorted(folders) == [str(tmp_path / "a"), str(tmp_path / "b")]


def test_of_several_files_that_cannot_be_written_the_one_at_fault_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=rf"^cannot write {tmp_path / 'file' / 'b'}: .*File exists|Not a directory"):
        write_together({tmp_path / "a": b"", tmp_path / "file" / "b": b""})
    assert os.listdir(tmp_path) == ["file"]


def test_new_folders_are_on_the_disk_in_those_above_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    make_folder(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()
    assert sorted(synced) == [str(tmp_path), str(tmp_path / "a")]
    make_folder(tmp_path / "a/b")
    assert len(synced) == 2


def test_a_folder_s_tree_is_on_the_disk_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    fill(tmp_path / "a", "x")
    fill(tmp_path / "a/b", "y")
    sync_tree(tmp_path / "a")
    assert sorted(synced) == [str(tmp_path / one) for one in ("a", "a/b", "a/b/file", "a/file")]


def test_only_what_is_old_and_half_written_is_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, age in (("old", 3601), ("new", 3599)):
        (tmp_path / f"{name}{PARTIAL}").touch()
        fill(tmp_path / f"{name}-folder{PARTIAL}", "x")
        for path in (tmp_path / f"{name}{PARTIAL}", tmp_path / f"{name}-folder{PARTIAL}"):
            os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "whole").touch()
    os.utime(tmp_path / "whole", (0, 0))
    monkeypatch.setattr("orchestrator.store.durable.time.time", lambda: 1e9)
    assert remove_abandoned(tmp_path) == 2
    assert sorted(os.listdir(tmp_path)) == [f"new-folder{PARTIAL}", f"new{PARTIAL}", "whole"]


def test_what_was_being_written_is_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    fill(outside, "kept")
    top = tmp_path / "top"
    fill(top, "kept")
    fill(top / "deep", "kept")
    fill(top / "deep" / f"half{PARTIAL}", "x")
    (top / f"file{PARTIAL}").touch()
    (top / f"link{PARTIAL}").symlink_to(outside)
    assert remove_partials(top, tmp_path / "absent") == 3
    assert sorted(path.name for path in top.rglob("*")) == ["deep", "file", "file"]
    assert (outside / "file").read_text() == "kept"


def test_a_folder_is_removed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    remove_at_once(folder)
    fill(folder, "x")
    seen: list[tuple[bool, bool]] = []
    rmtree = shutil.rmtree

    def look(path: Path) -> None:
        seen.append((folder.exists(), is_being_replaced(folder)))
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", look)
    remove_at_once(folder)
    assert seen == [(False, True)]
    assert os.listdir(tmp_path) == []
    assert not is_being_replaced(folder)
    fill(tmp_path / f".folder.old{PARTIAL}", "left by a killed process")
    fill(folder, "x")
    remove_at_once(folder)
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_not_there_needs_no_removing(tmp_path: Path) -> None:
    remove_file(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").touch()
    remove_file(tmp_path / "link")
    assert os.listdir(tmp_path) == ["kept"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "cannot write {path}: No space left on device"),
        (OSError(28, "No space left on device", "{path}"), "cannot write {path}: No space left on device"),
        (OSError(13, "Permission denied", "/other"), r"cannot write {path}: Permission denied \(/other\)"),
        (OSError("nobody knows"), "cannot write {path}: nobody knows"),
    ],
)
def test_what_the_disk_refuses_is_one_line(tmp_path: Path, error: OSError, said: str) -> None:
    path = tmp_path / "x"
    if error.filename == "{path}":
        error.filename = str(path)
    with pytest.raises(StoreError, match=f"^{said.format(path=path)}$"), refusing("write", path):
        raise error
