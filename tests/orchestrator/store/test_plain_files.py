"""Files are looked at as what they are: no link is followed, nothing but a plain file is opened, nothing too large is read."""

import os
from pathlib import Path

import numpy as np
import pytest

from orchestrator.store import plain_files
from orchestrator.store.plain_files import (
    entries_of,
    files_below,
    is_folder,
    is_plain,
    is_there,
    mapped_array,
    open_plain,
    read_plain,
    refuse_links,
    status_of,
    text_of,
)
from workers.errors import StoreError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A file in a folder, an empty folder, links to both and to nothing, a pipe."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("λ")
    (tmp_path / "empty").mkdir()
    for link, target in (("to_file", "folder/file"), ("to_folder", "folder"), ("to_nothing", "nothing")):
        (tmp_path / link).symlink_to(tmp_path / target)
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def test_what_lies_where(tree: Path) -> None:
    assert [is_there(tree / name) for name in ("folder", "folder/file", "to_nothing", "pipe")] == [True] * 4
    assert not is_there(tree / "nothing")
    assert status_of(tree / "folder/file/below") is None
    assert [is_folder(tree / name) for name in ("folder", "folder/file", "nothing", "pipe")] == [
        True,
        False,
        False,
        False,
    ]
    assert [is_plain(tree / name) for name in ("folder", "folder/file", "nothing", "pipe")] == [
        False,
        True,
        False,
        False,
    ]
    for look in (is_folder, is_plain, refuse_links, entries_of):
        for name in ("to_file", "to_folder", "to_nothing"):
            with pytest.raises(StoreError, match=rf"^{tree / name} is a link: inside a sweep none is followed"):
                look(tree / name)
        with pytest.raises(StoreError, match=rf"^{tree / 'to_folder'} is a link"):
            look(tree / "to_folder" / "file")


def test_folders_are_listed_and_walked_without_links(tree: Path) -> None:
    assert sorted(entry.name for entry in entries_of(tree / "folder")) == ["file"]
    assert entries_of(tree / "nothing") == entries_of(tree / "empty") == []
    (tree / "empty" / "deep").mkdir()
    (tree / "empty" / "deep" / "other").touch()
    assert sorted(files_below(tree)) == [tree / "empty/deep/other", tree / "folder/file"]
    assert list(files_below(tree / "nothing")) == list(files_below(tree / "folder/file")) == []


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_CREAT])
def test_a_plain_file_alone_is_opened(tree: Path, flags: int) -> None:
    os.close(open_plain(tree / "folder/file", flags))
    for name, said in (
        ("to_file", f"{tree / 'to_file'} is a link"),
        ("to_nothing", f"{tree / 'to_nothing'} is a link"),
        ("to_folder/file", f"{tree / 'to_folder'} is a link"),
        ("to_folder/new", f"{tree / 'to_folder'} is a link"),
    ):
        with pytest.raises(StoreError, match=f"^{said}"):
            open_plain(tree / name, flags)
    if flags == os.O_RDONLY:
        for name in ("pipe", "folder"):
            with pytest.raises(StoreError, match=rf"^{tree / name} is no plain file$"):
                open_plain(tree / name, flags)
        with pytest.raises(FileNotFoundError):
            open_plain(tree / "nothing", flags)
    assert not (tree / "folder" / "new").exists()
    assert not (tree / "nothing").exists()


def test_links_are_refused_where_the_system_does_not_say_what_was_opened(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> str:
        raise OSError

    monkeypatch.setattr(os, "readlink", refuse)
    monkeypatch.setattr(os.path, "realpath", lambda path: str(path).replace("to_folder", "folder"))
    os.close(open_plain(tree / "folder/file", os.O_RDONLY))
    with pytest.raises(StoreError, match="to_folder is a link"):
        open_plain(tree / "to_folder/file", os.O_RDONLY)


def test_a_refused_file_is_closed_and_a_new_one_has_its_mode(tree: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreError):
        open_plain(tree / "pipe", os.O_RDONLY)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(open_plain(tree / "new", os.O_WRONLY | os.O_CREAT, 0o600))
    assert (tree / "new").stat().st_mode & 0o777 == 0o600


def test_a_path_that_is_not_resolved_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    for path in (Path("folder/file"), tree / "empty" / ".." / "folder"):
        with pytest.raises(StoreError, match=rf"^{path} is no absolute path without links: resolve it first$"):
            refuse_links(path)


@pytest.mark.parametrize(
    ("most", "small", "memory", "limit"),
    [(10, 99, 99, None), (9, 99, 99, 9), (None, 9, 10, None), (None, 9, 9, 9), (None, 10, 1, None)],
)
def test_no_more_is_read_than_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int | None, small: int, memory: int, limit: int | None
) -> None:
    monkeypatch.setattr(plain_files, "SMALL", small)
    monkeypatch.setattr(plain_files, "total_bytes", lambda: memory)
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    if limit is None:
        assert read_plain(path, most) == bytes(10)
    else:
        with pytest.raises(StoreError, match=rf"^{path} is damaged: it has 10 bytes, expected at most {limit}$"):
            read_plain(path, most)


def test_text_is_small_and_utf_8(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert text_of(tree / "folder/file") == "λ"
    monkeypatch.setattr(plain_files, "SMALL", 1)
    with pytest.raises(StoreError, match=r"it has 2 bytes, expected at most 1$"):
        text_of(tree / "folder/file")
    (tree / "folder/file").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        text_of(tree / "folder/file")


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_mapped_as_it_lies(tmp_path: Path, version: tuple[int, int], order: str) -> None:
    values = np.asarray(np.arange(6.0).reshape(2, 3), order=order)  # type: ignore[call-overload]
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, values, version)
    found = mapped_array(tmp_path / "a.npy")
    assert isinstance(found, np.memmap)
    assert (found.dtype, found.flags.writeable, found.flags.f_contiguous) == (np.float64, False, order == "F")
    np.testing.assert_array_equal(found, values)


def test_no_object_is_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=rf"^{tmp_path / 'a.npy'} holds objects$"):
        mapped_array(tmp_path / "a.npy")
