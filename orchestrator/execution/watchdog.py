"""Ends what an embedded Ray leaves behind, within seconds, however the driver went: a process that waits for nothing else.

Ray's agents look for a cluster whose driver was killed outright for up to a minute; a session's scratch folder stays for good.
The driver holds one end of a pipe; whatever happens to it, the system closes that end. A session's processes are found by that
scratch folder, their working directory: their names, and what they were started with, Ray writes over (Linux; elsewhere Ray's
own notice has to do).

Run as a file by itself, so that it costs a Python that imports nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

GRACE = 1.0
"""Seconds in which they may end by themselves."""
LIMIT = 10.0
"""Seconds after which it gives up: on a process that the system cannot end, say."""


class Watchdog:
    """The driver's end: starts the process, and lets go of it."""

    def __init__(self, folder: str):
        """Watch over the processes whose working directory is the scratch `folder`, and over the folder."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, os.path.realpath(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal is not for it
        )

    def stop(self) -> None:
        """Let it end what is left, and wait for that."""
        self._process.communicate()


def main(folder: str) -> None:
    """Wait until the driver is gone or has let go, then end what is left of its session, and remove its empty folder."""
    sys.stdin.buffer.read()
    began = time.monotonic()
    while (left := living_in(folder)) and time.monotonic() - began < LIMIT:
        if time.monotonic() - began > GRACE:
            for process in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    with suppress(OSError):
        os.rmdir(folder)


def living_in(folder: str) -> list[int]:
    """Return the processes whose working directory is a folder, given without links; or was, if it is removed."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # somebody else's, or gone meanwhile
            if os.readlink(path) in (folder, f"{folder} (deleted)"):
                found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    main(sys.argv[1])
