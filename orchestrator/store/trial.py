"""What the conformance suite works with: a storage that can be harmed and can die, and a small sweep whose content is known."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypedDict
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.ledger import DONE, FAILED, PENDING
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from workers.errors import StoreError
from workers.runs import Checkpoint, Failure, Outcome

N, T = 13, 5
MEASURES = ("margin", "loss")
FAILURE = Failure("ZeroDivisionError", "division by zero", "Traceback ...\nZeroDivisionError: division by zero")
SETTLING = 0.05
"""Seconds in which threads that had begun to write when another one died come to their end."""
HELD_OUT = DesignLayout("held-out", "subsets", "score", 3, 2)


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


@dataclass
class Trial:
    """A sweep on a storage under test, with one writer, and what should come out of it. Use it in a `with`, or close it."""

    storage: Storage
    runs: int = 10
    """Rows of its design `fit`."""
    pack: int = 4
    """Rows a pack."""
    reopen: bool = False
    """Whether the store is opened anew before every step."""
    _store: RunStore | None = field(default=None, repr=False)

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def store(self) -> RunStore:
        """The store, open for writing."""
        if self._store is None or self.reopen:
            self.close()
            self._store = self.storage.open(write=True)
        return self._store

    def close(self) -> None:
        """End the session."""
        if self._store:
            self._store.close()
            self._store = None

    @property
    def contents(self) -> Contents:
        """What the store is created with: a design under test, and a second one that nothing is done to."""
        fit = DesignLayout("fit", "subsets", "fit", self.runs, self.pack)
        more = {"task": "digits", "sizes": [1, 2]}
        return Contents(config_hash="c0ffee", n=N, t=T, measures=MEASURES, designs=(fit, HELD_OUT), attributes=more)

    def create(self) -> Trial:
        """Create the store and write its plan."""
        self._store = self.storage.create(self.contents)
        return self.write_plan(self.runs)

    def plan(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return the plan of rows start..stop; rows do not depend on how many there are."""
        rows = np.arange(start, stop)
        masks = [np.random.default_rng(row).random(N) < 0.5 for row in rows]
        return {
            "masks": np.array(masks, dtype=bool).reshape(-1, N),
            "seeds": (2**32 - 1 - rows).astype(np.uint32),
            "subsets": rows // 3,
            "repeats": (rows % 3).astype(np.int32),
        }

    def write_plan(self, runs: int, start: int = 0) -> Trial:
        """Write the plan of the packs from row `start` on."""
        store = self.store  # one session: a plan that is not finished is begun again by whoever opens the store next
        for first in range(start, runs, self.pack):
            store.write_plan("fit", first, **self.plan(first, min(first + self.pack, runs)))
        return self

    def rows(self, pack: int) -> list[int]:
        """Return the rows of a pack."""
        return list(self.store.designs["fit"].rows(pack))

    def outputs(self, row: int, measure: str) -> NDArray[np.float32]:
        """Return the outputs (t,) that a row is given."""
        return np.random.default_rng([row, MEASURES.index(measure)]).standard_normal(T).astype(np.float32)

    def outcome(self, row: int, *, fail: bool = False, epochs: tuple[int, ...] = ()) -> Outcome:
        """Return what a row brings: outputs and checkpoints after `epochs`, or a failure."""
        if fail:
            return Outcome(row, failure=FAILURE, seconds=0.1)
        import torch

        kept = tuple(Checkpoint(e, 10 * e, 0.1, {"w": torch.full((2, 2), float(row + e))}) for e in epochs)
        return Outcome(row, {measure: self.outputs(row, measure) for measure in MEASURES}, kept, seconds=0.1)

    def commit(self, rows: Iterable[int], *, fail: bool = False, epochs: tuple[int, ...] = ()) -> None:
        """Commit rows, a pack at a time."""
        by_pack: dict[int, list[Outcome]] = {}
        for row in rows:
            by_pack.setdefault(row // self.pack, []).append(self.outcome(row, fail=fail, epochs=epochs))
        for pack, outcomes in by_pack.items():
            self.store.commit("fit", pack, outcomes, worker="w0", started=1.7e9, seconds=2.5)

    def expect(self, done: Iterable[int], failed: Iterable[int] = ()) -> None:
        """Raise AssertionError unless these rows are done and failed, the others pending, and nothing is damaged."""
        try:
            self._expect(sorted(done), sorted(failed))
        except StoreError as error:
            raise AssertionError(f"the store refuses what should be whole: {error}") from error

    def _expect(self, done: list[int], failed: list[int]) -> None:
        runs = self.store.designs["fit"].runs
        states = np.full(runs, PENDING, dtype=np.int8)
        states[done], states[failed] = DONE, FAILED
        same(self.store.states("fit"), states, "the states of the rows")
        for measure in MEASURES:
            expected = np.full((runs, T), np.nan, dtype=np.float32)
            for row in done:
                expected[row] = self.outputs(row, measure)
            same(self.store.outputs("fit", measure), expected, f"the outputs through {measure!r} of rows done and not")
        found = [(one.row, one.kind, one.message, one.traceback) for one in self.store.failures("fit")]
        told = [(row, FAILURE.kind, FAILURE.message, FAILURE.traceback) for row in failed]
        assert found == told, f"the failures are {found}, expected {told}"
        damages = self.store.verify("fit")
        assert not damages, f"verify finds {damages[0].what} damaged where nothing was harmed: {damages[0].reason}"

    def mend(self, epochs: tuple[int, ...] = ()) -> None:
        """Do what a sweep does: write damaged plans again, forget what else is damaged, train again what is pending."""
        for _ in range(2):  # where the plan is damaged, outputs cannot be checked
            for damage in self.store.verify("fit"):
                if damage.what == "masks":
                    start = damage.rows[0]
                    stop = min(start + self.pack, self.store.designs["fit"].runs)
                    self.store.write_plan("fit", start, **self.plan(start, stop))
                else:
                    self.store.forget("fit", damage.rows)
        self.commit(np.flatnonzero(self.store.states("fit") == PENDING).tolist(), epochs=epochs)


def same(found: NDArray[Any], expected: NDArray[Any], what: str) -> None:
    """Raise AssertionError unless arrays agree bit by bit (any NaN is as good as another)."""
    assert found.dtype == expected.dtype, f"{what} are {found.dtype}, expected {expected.dtype}"
    assert found.shape == expected.shape, f"{what} have shape {found.shape}, expected {expected.shape}"
    equal = np.array_equal(found, expected, equal_nan=np.issubdtype(expected.dtype, np.floating))
    assert equal, f"{what} are not what they should be, first {_first_difference(found, expected)}"


def _first_difference(found: NDArray[Any], expected: NDArray[Any]) -> str:
    differs = (found != expected) & ~((found != found) & (expected != expected))
    at = tuple(int(place) for place in np.argwhere(differs)[0])
    return f"at {at}: {found[at]}, expected {expected[at]}"


Make = Callable[[], Storage]
"""Returns a new, empty storage."""


class Shape(NamedTuple):
    """A design under test, and how it is gone through."""

    runs: int = 10
    pack: int = 4
    reopen: bool = False
    """Whether the store is opened anew before every step."""


USUAL = Shape()


@contextmanager
def planned(make: Make, shape: Shape = USUAL) -> Iterator[Trial]:
    """Yield a planned sweep; close it afterwards."""
    with Trial(make(), shape.runs, shape.pack) as trial:
        trial.create().reopen = shape.reopen
        yield trial


@contextmanager
def refused(kind: type[Exception], what: str) -> Iterator[None]:
    """Raise AssertionError unless the block raises this exception, with one line."""
    try:
        yield
    except kind as error:
        lines = len(str(error).splitlines())
        assert lines == 1, f"{what} is refused in {lines} lines, expected one"
    except Exception as error:
        raise AssertionError(f"{what} raises {type(error).__name__}, expected {kind.__name__}") from error
    else:
        raise AssertionError(f"{what} is not refused, expected {kind.__name__}")
