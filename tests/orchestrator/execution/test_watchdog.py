"""What a session started ends with its driver, however that went, and nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.execution.watchdog import GRACE, Watchdog, living_in

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="processes are found by /proc")

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process in a folder that would run for a minute."""
    started = []

    def one(folder: Path, code: str = "pass", **environment: str) -> subprocess.Popen[bytes]:
        command = f"{code}\nimport time; print(flush=True); time.sleep(60)"
        process = subprocess.Popen(
            [sys.executable, "-c", command], cwd=folder, stdout=subprocess.PIPE, env={**os.environ, **environment}
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield one
    for process in started:
        process.kill()
        process.communicate()


def test_what_lives_there_is_ended_and_nothing_else(start: Start, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "scratch2").mkdir()
    watchdog = Watchdog(str(scratch))
    ours, deaf = start(scratch), start(scratch, "import signal; signal.signal(15, signal.SIG_IGN)")
    others = start(tmp_path), start(tmp_path / "scratch2")
    assert sorted(living_in(str(scratch))) == sorted([ours.pid, deaf.pid])
    time.sleep(GRACE + 0.7)
    assert ours.poll() is None, "nothing is done while the driver holds on"
    watchdog.stop()
    assert [ours.wait(5), deaf.wait(5)] == [-signal.SIGKILL, -signal.SIGKILL]
    assert [one.poll() for one in others] == [None, None]
    assert not scratch.exists()


def test_what_lived_in_a_folder_that_is_gone_is_found(start: Start, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = start(scratch)
    scratch.rmdir()
    Watchdog(str(scratch)).stop()
    assert process.wait(5) == -signal.SIGKILL


def test_a_folder_that_holds_something_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    Watchdog(str(tmp_path)).stop()
    assert (tmp_path / "kept").exists()


def test_it_does_not_wait_where_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    Watchdog(str(tmp_path)).stop()
    assert time.monotonic() - began < 5, "far below the limit, also on a busy machine"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_driver_that_is_killed_leaves_nothing(start: Start, tmp_path: Path, how: int) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    driver = start(
        tmp_path,
        "from orchestrator.execution.watchdog import *\n"
        "watchdog = Watchdog('scratch')\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], cwd='scratch')",
        PYTHONPATH=str(ROOT),
    )
    assert len(living_in(str(scratch))) == 1
    driver.send_signal(how)
    deadline = time.monotonic() + 30
    while living_in(str(scratch)) or scratch.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
