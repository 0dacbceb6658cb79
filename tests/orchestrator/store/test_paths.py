import os
from pathlib import Path

import pytest

from orchestrator.store.durable import PARTIAL, refusing, remove_partials, write_atomically
from orchestrator.store.paths import SweepPaths, check_name
from workers.errors import StoreError


def test_every_path_is_inside_the_sweep(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path)
    assert paths.record("fit", 7) == tmp_path / "ledger/fit/000007.json"
    assert paths.checkpoint("full", 3, 10) == tmp_path / "checkpoints/full/3/10.safetensors"
    assert paths.output_array("fit", "margin") == tmp_path / "runs.zarr/fit/outputs/margin"
    assert paths.attribution("trak") == tmp_path / "attributions.zarr/trak"
    assert SweepPaths(str(tmp_path)) == paths  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc", ".hidden", "zarr.json", "__x", "a b", "x.partial", "a\n"]
)
def test_a_name_that_is_no_plain_file_name_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match="cannot name a folder"):
        check_name(name)


@pytest.mark.parametrize("name", ["fit", "leave-one-out", "λ_0.5", "3rd"])
def test_plain_names_pass(name: str) -> None:
    assert check_name(name) == name


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["c.json"]


def test_a_failed_write_leaves_the_old_file_and_names_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*x\.json: No space left on device$") as caught:
        write_atomically(path, b"new")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.json"]


def test_partial_files_are_removed_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / f"a/b/x{PARTIAL}").touch()
    (tmp_path / "a/kept").touch()
    assert remove_partials(tmp_path / "a", tmp_path / "absent") == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept"]


def test_refusing_leaves_other_exceptions_alone(tmp_path: Path) -> None:
    with pytest.raises(KeyError), refusing("read", tmp_path):
        raise KeyError
