import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.store.lease import Lease, holder
from orchestrator.store.paths import SweepPaths
from workers.errors import LeaseError

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
