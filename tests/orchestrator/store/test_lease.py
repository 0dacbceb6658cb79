import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.store.lease import UNKNOWN, Lease, holder
from orchestrator.store.paths import SweepPaths
from orchestrator.store.secret_names import LEFT_OUT
from workers.errors import LeaseError, StoreError

PROGRAM = """
import sys
from pathlib import Path
from orchestrator.store.lease import Lease
from orchestrator.store.paths import SweepPaths
lease = Lease(SweepPaths(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_process(root: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a process that holds the lease of `root` until its standard input closes."""
    here = Path(__file__).parents[3]
    command = [sys.executable, "-c", PROGRAM, str(root)]
    with subprocess.Popen(command, cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_by_name_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "sweep")
    with other_process(paths.root) as process:
        with pytest.raises(LeaseError, match=rf"written by process {process.pid} on .* since 20\d\d-"):
            Lease(paths)
        found = holder(paths)
        assert found is not None
        assert found["pid"] == process.pid
        assert set(found) == {"pid", "host", "started", "command"}
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert holder(paths) is None
        Lease(paths).release()


def test_the_holder_says_who_it_is_since_when_and_what_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["counterfactory", "run", "--token", "abc", "x" * 500])
    paths, before = SweepPaths(tmp_path), datetime.now(UTC).replace(microsecond=0)
    lease = Lease(paths)
    found = holder(paths)
    assert found is not None
    assert before <= datetime.fromisoformat(found.pop("started")) <= datetime.now(UTC)
    command = f"counterfactory run --token {LEFT_OUT} " + "x" * 500
    assert found == {"pid": os.getpid(), "host": socket.gethostname(), "command": command[:400]}
    assert paths.lease.stat().st_size == 4096
    assert paths.lease.stat().st_mode & 0o777 == 0o600
    with pytest.raises(LeaseError) as caught:
        Lease(paths)
    assert str(caught.value).startswith(
        f"{tmp_path} is being written by process {os.getpid()} on {socket.gethostname()}"
    )
    assert str(caught.value).endswith(f"({command[:400]}): wait for it, or stop it")
    lease.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}"])
def test_a_holder_whose_words_are_lost_is_unknown(tmp_path: Path, content: bytes) -> None:
    paths = SweepPaths(tmp_path)
    lease = Lease(paths)
    paths.lease.write_bytes(content)
    assert holder(paths) == dict.fromkeys(("pid", "host", "started", "command"), UNKNOWN)
    lease.release()


def test_a_folder_in_its_place_is_held_by_nobody_and_refused(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path)
    paths.lease.mkdir()
    assert holder(paths) is None
    with pytest.raises(StoreError, match=rf"^{paths.lease} is a folder: remove it"):
        Lease(paths)


def test_a_writer_waits_a_moment_for_who_only_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, naps = SweepPaths(tmp_path), []
    first = Lease(paths)

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 9:
            first.release()

    monkeypatch.setattr("orchestrator.store.lease.time.sleep", nap)
    Lease(paths).release()
    assert naps == [0.03] * 9
    again = Lease(paths)
    with pytest.raises(LeaseError):
        Lease(paths)
    assert len(naps) == 18, "after the last try nobody waits"
    again.release()


def test_a_file_system_that_cannot_lock_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("orchestrator.store.lease.fcntl.flock", refuse)
    with pytest.raises(
        StoreError, match=rf"^{tmp_path}: its file system cannot lock files \(Operation not supported\)$"
    ):
        Lease(SweepPaths(tmp_path))


def test_release_frees_it_and_may_be_repeated(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path)
    assert holder(paths) is None
    lease = Lease(paths)
    found = holder(paths)
    assert found is not None
    assert found["pid"] == os.getpid()
    with pytest.raises(LeaseError, match=f"process {os.getpid()}"):
        Lease(paths)
    lease.release()
    lease.release()
    assert holder(paths) is None
    Lease(paths).release()
