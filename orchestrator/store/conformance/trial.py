"""What the checks work with: a small sweep whose content is known, and what should come out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.conformance.records import Delivered, expect_records
from orchestrator.store.conformance.storage import Contents, Storage
from orchestrator.store.hashes import content_hash, row_hashes
from orchestrator.store.ledger import DONE, FAILED, PENDING
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.run_store import RunStore
from workers.errors import StoreError
from workers.runs import Checkpoint, Failure, Outcome

N, T = 13, 5
MEASURES = ("margin", "loss")
FAILURE = Failure("ZeroDivisionError", "division by zero", "Traceback ...\nZeroDivisionError: division by zero")
PROVENANCE = "a-record"
"""Id of what the rows are said to be trained under."""
HELD_OUT = DesignLayout("held-out", "subsets", "score", 3, 2)


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
    seconds: float = 0.1
    """What every run is said to take."""
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

    @property
    def packs(self) -> int:
        """Number of packs of its design `fit`."""
        return -(-self.runs // self.pack)

    def rows(self, pack: int) -> list[int]:
        """Return the rows of a pack."""
        return list(self.store.designs["fit"].rows(pack))

    def outputs(self, row: int, measure: str) -> NDArray[np.float32]:
        """Return the outputs (t,) that a row is given."""
        return np.random.default_rng([row, MEASURES.index(measure)]).standard_normal(T).astype(np.float32)

    def outputs_of(self, rows: Sequence[int], measure: str) -> NDArray[np.float32]:
        """Return the outputs (r, t) of several rows."""
        return np.array([self.outputs(row, measure) for row in rows], dtype=np.float32).reshape(-1, T)

    def outcome(self, row: int, *, fail: bool = False, epochs: tuple[int, ...] = ()) -> Outcome:
        """Return what a row brings: outputs and checkpoints after `epochs`, or a failure."""
        if fail:
            return Outcome(row, failure=FAILURE, seconds=self.seconds)
        import torch

        kept = tuple(Checkpoint(e, 10 * e, 0.1, {"w": torch.full((2, 2), float(row + e))}) for e in epochs)
        return Outcome(row, {measure: self.outputs(row, measure) for measure in MEASURES}, kept, seconds=self.seconds)

    def commit_held_out(self) -> None:
        """Plan the second design as the first one, and commit all of it."""
        store, design = self.store, HELD_OUT
        for pack in range(design.packs):
            rows = design.rows(pack)
            store.write_plan(design.name, rows.start, **self.plan(rows.start, rows.stop))
        for pack in range(design.packs):
            outcomes = [self.outcome(row) for row in design.rows(pack)]
            store.commit(design.name, pack, outcomes, worker="w1", started=1.7e9, seconds=1.0)

    def commit(self, rows: Iterable[int], *, fail: bool = False, epochs: tuple[int, ...] = ()) -> None:
        """Commit rows, a pack at a time."""
        by_pack: dict[int, list[Outcome]] = {}
        for row in rows:
            by_pack.setdefault(row // self.pack, []).append(self.outcome(row, fail=fail, epochs=epochs))
        for pack, outcomes in by_pack.items():
            store = self.store
            store.provenance = PROVENANCE
            store.commit("fit", pack, outcomes, worker="w0", started=1.7e9, seconds=2.5)

    def delivered(self, done: Sequence[int], failed: Sequence[int]) -> Delivered:
        """Return what the ledger must say of rows, taken of what they were given and of the checkpoints that lie there."""
        files: dict[int, dict[int, str]] = {}
        keys = self.storage.keys()
        for key in keys:
            if key.startswith("checkpoints/fit/") and key.endswith(".safetensors"):
                row, epoch = map(int, key.removesuffix(".safetensors").split("/")[2:])
                if row in done:
                    files.setdefault(row, {})[epoch] = content_hash(self.storage.read(key))
        plan = self.plan(0, max(done, default=-1) + 1)
        outputs = [self.outputs_of(done, measure) for measure in MEASURES]
        rows = np.array(done, dtype=np.int64)
        kept = [files.get(row, {}) for row in done]
        hashes = row_hashes({name: array[rows] for name, array in plan.items()}, outputs, kept) if done else []
        return Delivered(dict(zip(done, hashes, strict=True)), failed, files, self.seconds)

    def expect(self, done: Iterable[int], failed: Iterable[int] = (), store: RunStore | None = None) -> None:
        """Raise AssertionError unless these rows are done and failed, the others pending, and nothing is damaged.

        It is asked of the store that is open for writing, or of another one, for as many rows as that knows of.
        """
        asked = store or self.store
        runs = asked.designs["fit"].runs
        try:
            expect_rows(
                self, asked, [row for row in sorted(done) if row < runs], [row for row in sorted(failed) if row < runs]
            )
        except StoreError as error:
            raise AssertionError(f"the store refuses what should be whole: {error}") from error

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


def expect_rows(trial: Trial, store: RunStore, done: list[int], failed: list[int]) -> None:
    """Raise AssertionError unless the store says that just these rows of `fit` are done and failed, in whatever it is asked."""
    runs = store.designs["fit"].runs
    states = np.full(runs, PENDING, dtype=np.int8)
    states[done], states[failed] = DONE, FAILED
    same(store.states("fit"), states, "the states of the rows")
    for measure in MEASURES:
        expected = np.full((runs, T), np.nan, dtype=np.float32)
        expected[done] = trial.outputs_of(done, measure)
        same(store.outputs("fit", measure), expected, f"the outputs through {measure!r} of rows done and not")
    found = [(one.row, one.kind, one.message, one.traceback) for one in store.failures("fit")]
    failures = [(row, FAILURE.kind, FAILURE.message, FAILURE.traceback) for row in failed]
    assert found == failures, f"the failures are {found}, expected {failures}"
    damages = store.verify("fit")
    assert not damages, f"verify finds {damages[0].what} damaged where nothing was harmed: {damages[0].reason}"
    expect_records(store, trial.delivered(done, failed))


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
