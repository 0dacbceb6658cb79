"""One array is mapped; anything else is refused with a reason, and no file stays open."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workers.data.npy import SeveralArrays, UnreadableArray, map_array


def test_an_array_is_mapped_read_only(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6).reshape(2, 3))
    found = map_array(path)
    assert isinstance(found, np.memmap)
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableArray, match="No such file") as caught:
        map_array(tmp_path / "none.npy")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def is_open(path: Path) -> bool:
    return any(os.path.realpath(f"/proc/self/fd/{one}") == str(path) for one in os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", b"\x93NUMPY\x01\x00"])
def test_bytes_that_are_no_array(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(UnreadableArray) as caught:
        map_array(path)
    assert len(str(caught.value).splitlines()) == 1
    assert not is_open(path)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableArray):
        map_array(tmp_path / "a.npy")


def test_an_archive_is_refused_and_not_left_open(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(2), b=np.arange(3))
    with pytest.raises(SeveralArrays, match=r"holds several arrays \(\.npz\)"):
        map_array(path)
    assert not is_open(path)


def test_it_is_light() -> None:
    program = (
        "import sys, workers.data.npy; print(*(name for name in ('torch', 'ray', 'pandas') if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
