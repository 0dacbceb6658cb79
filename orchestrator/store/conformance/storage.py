"""Where a store under test lies: a place that can be harmed past the store, and at which the writing process can die."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict
from unittest import mock

from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore

SETTLING = 0.05
"""Seconds in which threads that had begun to write when another one died come to their end."""


class Crash(BaseException):
    """Stands in for a kill: nothing of the store catches it."""


class Contents(TypedDict):
    """What a store is created with: the arguments of `RunStore.create`, but for where."""

    config_hash: str
    n: int
    t: int
    measures: tuple[str, ...]
    designs: Sequence[DesignLayout]
    attributes: dict[str, Any]


class Storage(Protocol):
    """An empty place for one store, and what can happen to it behind the store's back.

    Keys are the paths that docs/store.md names, relative to the sweep, with slashes: `ledger/fit/000001.json`.
    """

    def create(self, contents: Contents) -> RunStore:
        """Create the store there, and open it for writing."""

    def open(self, *, write: bool = False) -> RunStore:
        """Open the store that is there."""

    def keys(self) -> list[str]:
        """Return the keys of all that lies there, whether it counts or not."""

    def read(self, key: str) -> bytes:
        """Return what lies under a key."""

    def write(self, key: str, content: bytes) -> None:
        """Put something under a key, past the store."""

    def remove(self, key: str) -> None:
        """Remove what lies under a key, past the store."""

    def dying(self, step: int) -> AbstractContextManager[None]:
        """Let the writing process die within: the durable change number `step`, from 0, and all after it raise Crash."""


def contents_of(storage: Storage) -> dict[str, bytes]:
    """Return all that lies in a storage, by key."""
    keys = storage.keys()
    return {key: storage.read(key) for key in keys}


@dataclass(frozen=True)
class Folder:
    """A folder of this machine as a storage."""

    root: Path
    """The sweep; nothing is there yet."""
    kind: type[RunStore] = RunStore
    """The store, or a subclass of it."""

    def create(self, contents: Contents) -> RunStore:
        """Create the store in the folder, and open it for writing."""
        return self.kind.create(SweepPaths(self.root), **contents)

    def open(self, *, write: bool = False) -> RunStore:
        """Open the store in the folder."""
        return self.kind.open(SweepPaths(self.root), write=write)

    def keys(self) -> list[str]:
        """Return the paths of all files."""
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())

    def read(self, key: str) -> bytes:
        """Return what is in a file."""
        return (self.root / key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        """Write a file."""
        (self.root / key).write_bytes(content)

    def remove(self, key: str) -> None:
        """Remove a file."""
        (self.root / key).unlink()

    @contextmanager
    def dying(self, step: int) -> Iterator[None]:
        """Die when a file or folder is to be given its name: between two of these, nothing changes that a reader could see."""
        changes, alone = itertools.count(), threading.Lock()
        dead = threading.Event()

        def until_death(change: Callable[..., None]) -> Callable[..., None]:
            def changed(*arguments: Any, **options: Any) -> None:
                with alone:
                    if dead.is_set() or next(changes) >= step:
                        dead.set()
                        raise Crash
                    change(*arguments, **options)

            return changed

        with mock.patch.multiple(os, replace=until_death(os.replace), rename=until_death(os.rename)):
            try:
                yield
            finally:
                if dead.is_set():
                    time.sleep(SETTLING)
                    raise Crash  # also in place of an error of cleaning up: the dead clean nothing up
