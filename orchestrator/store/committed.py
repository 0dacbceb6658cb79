"""The list of packs that were ever committed: by it, a ledger record that is lost is told from one never written.

One line a pack, its number, added when its first record is on the disk. A crash between the two leaves a record that is not
listed; whoever writes next lists it. A line that a crash cut off has no end, and is not counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from orchestrator.store.durable import refusing, write_atomically
from orchestrator.store.plain_files import SMALL, is_plain, open_plain, read_plain, status_of
from workers.errors import StoreError


class CommittedPacks:
    """The list of one design."""

    def __init__(self, path: Path):
        self.path = path
        self._seen: tuple[tuple[int, int, int], frozenset[int]] | None = None
        """The file's stamp when it was read last, and what was listed."""

    def read(self) -> frozenset[int]:
        """Return the packs that are listed: none where there is no list, as in sweeps made without. Raises StoreError."""
        with refusing("read", self.path):
            status = status_of(self.path)
            if status is None:
                return frozenset()
            stamp = status.st_mtime_ns, status.st_size, status.st_ino
            if self._seen is None or self._seen[0] != stamp:
                self._seen = stamp, self._parse(read_plain(self.path, SMALL))
            return self._seen[1]

    def bring_up_to_date(self, packs: Iterable[int]) -> frozenset[int]:
        """List packs beside those that are, after the end of a line; return all that are listed then."""
        with refusing("read", self.path):
            content = read_plain(self.path, SMALL) if is_plain(self.path) else b""
        wanted, listed = frozenset(packs), self._parse(content)
        if not wanted <= listed or (content and not content.endswith(b"\n")):
            listed |= wanted
            write_atomically(self.path, "".join(map(_line, sorted(listed))).encode())
        return listed

    def add(self, pack: int) -> None:
        """List one more, durably; the list was brought up to date in this session."""
        with refusing("write", self.path):
            descriptor = open_plain(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, _line(pack).encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _parse(self, content: bytes) -> frozenset[int]:
        whole, _, _ = content.rpartition(b"\n")
        lines = whole.split(b"\n") if whole else []
        if not all(line.isdigit() for line in lines):
            raise StoreError(
                f"{self.path} is damaged: delete it, and `counterfactory run` lists the packs that are there"
            )
        return frozenset(map(int, lines))


def _line(pack: int) -> str:
    return f"{pack:06d}\n"
