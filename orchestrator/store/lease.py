"""The lease of a sweep folder: one process writes at a time, and everyone can see which one.

The lock is the kernel's (flock): it goes when its process goes, however that happens, so a lease is never stale.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from datetime import UTC, datetime
from typing import Any

from orchestrator.store.durable import PRIVATE, make_folder, refusing
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import is_folder, is_there, open_plain
from orchestrator.store.secret_names import command_without_secrets
from workers.errors import LeaseError, StoreError

_SIZE = 4096
"""The description is padded to one size, so that it is replaced by one write and never read half."""
UNKNOWN = "(unknown)"
_TRIES, _PAUSE = 10, 0.03
"""`holder` locks for an instant to find out; a writer that meets that instant tries again."""


class Lease:
    """The right to write a sweep folder, held until `release` or the end of the process."""

    def __init__(self, paths: SweepPaths):
        """Take the lease. Raises LeaseError, naming the holder, when another live process (or this one) has it."""
        self._file: int | None = None
        with refusing("lock", paths.lease):
            make_folder(paths.root)
            if is_folder(paths.lease):
                raise StoreError(
                    f"{paths.lease} is a folder: remove it, the process that writes makes a file of that name"
                )
            descriptor = open_plain(paths.lease, os.O_RDWR | os.O_CREAT, PRIVATE)
        try:
            _lock(descriptor, paths)
            with refusing("write", paths.lease):
                os.pwrite(descriptor, _description(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._file = descriptor

    def release(self) -> None:
        """Give the lease back; a second call does nothing."""
        if self._file is not None:
            # Unlocking, not only closing: a forked child may still have the descriptor.
            fcntl.flock(self._file, fcntl.LOCK_UN)
            os.close(self._file)
            self._file = None


def holder(paths: SweepPaths) -> dict[str, Any] | None:
    """Return who is writing the sweep folder now (pid, host, started, command), or None when nobody is."""
    if not is_there(paths.lease) or is_folder(paths.lease):  # nobody can hold a folder; who wants to write says so
        return None
    with refusing("read", paths.lease):
        descriptor = open_plain(paths.lease, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, paths: SweepPaths) -> None:
    for attempt in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt < _TRIES - 1:
                time.sleep(_PAUSE)
        except OSError as error:
            raise StoreError(f"{paths.root}: its file system cannot lock files ({error.strerror})") from error
        else:
            return
    who = _read(descriptor)
    raise LeaseError(
        f"{paths.root} is being written by process {who['pid']} on {who['host']} since {who['started']}"
        f" ({who['command']}): wait for it, or stop it"
    )


def _read(descriptor: int) -> dict[str, Any]:
    """Return the holder's description; all of it unknown in the instant before its first write, and where that was damaged."""
    try:
        found = json.loads(os.pread(descriptor, _SIZE, 0))
    except ValueError:
        found = {}
    said = found if isinstance(found, dict) else {}
    return {key: said.get(key, UNKNOWN) for key in ("pid", "host", "started", "command")}


def _description() -> bytes:
    said = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_without_secrets(sys.argv)[:400],
    }
    return json.dumps(said).encode().ljust(_SIZE)
