"""The conformance suite tells a broken store: each of these has one defect, and the check that finds it says which."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.store import checked_rows, design_runs, run_store, testing
from orchestrator.store.arrays import Chunk
from orchestrator.store.checkpoints import read_checkpoint
from orchestrator.store.hashes import content_hash
from orchestrator.store.ledger import DONE, FAILED, PENDING, PackRecord
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import Damage, RunStore
from workers.errors import StoreError
from workers.runs import Checkpoint, Outcome

# Reading


class ZeroWhereNothingIs(RunStore):
    def outputs(self, design: str, measure: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        return np.nan_to_num(super().outputs(design, measure, start, stop))


class DoublePrecision(RunStore):
    def subsets(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        return super().subsets(design, start, stop).astype(np.float64)


class FirstRows(RunStore):
    def masks(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        return super().masks(design)[: (stop or self.designs[design].runs) - start]


class OutputsUnchecked(RunStore):
    """Decodes chunks, fill where one does not decode, and asks no hash."""

    def outputs(self, design: str, measure: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        if measure not in self.measures:
            return super().outputs(design, measure, start, stop)
        states = self.states(design, start, stop)
        array = self._find(design).measured[measure]
        chunks = [array.read(pack) for pack in range(self.designs[design].packs)]
        empty = np.full((self.designs[design].pack, self.t), np.nan, dtype=np.float32)
        found = np.concatenate([chunk.values if isinstance(chunk, Chunk) else empty for chunk in chunks])
        rows = found[: self.designs[design].runs][start:stop].copy()
        rows[states != DONE] = np.nan
        return rows


class OutputsByTheirChecksumOnly(RunStore):
    """Finds what does not decode, and nothing that was replaced."""

    def outputs(self, design: str, measure: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        with mock.patch.object(checked_rows, "_disagreeing", return_value=()):
            return super().outputs(design, measure, start, stop)


class PlanUnchecked(RunStore):
    def masks(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        array = self._find(design).planned.arrays["masks"]
        chunks = [array.read(pack) for pack in range(self.designs[design].packs)]
        empty = np.zeros((self.designs[design].pack, self.n), dtype=bool)
        found = np.concatenate([chunk.values if isinstance(chunk, Chunk) else empty for chunk in chunks])
        return found[: self.designs[design].runs][start:stop].copy()


class SeedsByTheirChecksumOnly(RunStore):
    def seeds(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint32]:
        array = self._find(design).planned.arrays["seeds"]
        chunks = [array.read(pack) for pack in range(self.designs[design].packs)]
        if not all(isinstance(chunk, Chunk) for chunk in chunks):
            return super().seeds(design, start, stop)
        found = np.concatenate([chunk.values for chunk in chunks if isinstance(chunk, Chunk)])
        return found[: self.designs[design].runs][start:stop].copy()


class RememberedForEver(RunStore):
    """Gives what was damaged since it was read first: chunks of a file that changed are not checked anew."""

    def outputs(self, design: str, measure: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        seen = self.__dict__.setdefault("seen", set())
        if (design, measure) in seen:
            return OutputsUnchecked.outputs(self, design, measure, start, stop)  # type: ignore[arg-type]
        seen.add((design, measure))
        return super().outputs(design, measure, start, stop)


class CheckpointsUnchecked(RunStore):
    def checkpoints(self, design: str, row: int) -> tuple[Checkpoint, ...]:
        def read(path: Any, _: str) -> Checkpoint:
            return read_checkpoint(path, content_hash(path.read_bytes()))

        with mock.patch.object(design_runs, "read_checkpoint", read):
            return super().checkpoints(design, row)


class CheckpointsThatAreThere(RunStore):
    """Passes over checkpoints that are damaged or gone."""

    def checkpoints(self, design: str, row: int) -> tuple[Checkpoint, ...]:
        try:
            return super().checkpoints(design, row)
        except StoreError:
            return ()


class CheckpointsOfAnyRow(RunStore):
    def checkpoints(self, design: str, row: int) -> tuple[Checkpoint, ...]:
        return super().checkpoints(design, row) if 0 <= row < self.designs[design].runs else ()


class FinishedWithoutTheLost(RunStore):
    def finished(self, design: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.states(design) == DONE)


class FinishedWithTheFailed(RunStore):
    def finished(self, design: str) -> NDArray[np.int64]:
        super().finished(design)
        return np.flatnonzero(self.states(design) != PENDING)


class NothingLost(RunStore):
    def lost(self, design: str) -> list[Damage]:
        return []


class LostRowsAreNaN(RunStore):
    def outputs(self, design: str, measure: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        with mock.patch.object(checked_rows.CheckedRows, "refuse_lost"):
            return super().outputs(design, measure, start, stop)


class StretchesAreCut(RunStore):
    """Clips what is beyond the last row, as a slice does."""

    def outputs(self, design: str, measure: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        runs = self.designs[design].runs
        return super().outputs(design, measure, min(start, runs), runs if stop is None else min(stop, runs))


class StatesThatCanBeWritten(RunStore):
    """Hands out its own memory: who writes into it changes what the store says next."""

    def states(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[np.int8]:
        super().states(design, start, stop)
        return self._find(design).ledger._states[start : self.designs[design].runs if stop is None else stop]


class RecordsOfAnyPack(RunStore):
    def record(self, design: str, pack: int) -> PackRecord:
        return self._find(design).ledger.record(pack)


# Committing


class NoRecord(RunStore):
    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        super().commit(design, pack, outcomes, **told)
        self.paths.record(design, pack).unlink()


class NothingListed(RunStore):
    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        super().commit(design, pack, outcomes, **told)
        self.paths.committed(design).write_bytes(b"")


class RecordFirst(RunStore):
    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        runs = self._designs[design]
        write, later = runs._write_outputs, []
        runs._write_outputs = lambda *arguments: later.append(arguments)  # type: ignore[method-assign, assignment]
        super().commit(design, pack, outcomes, **told)
        write(*later[0])
        runs._write_outputs = write  # type: ignore[method-assign]


class OtherRowsPassedOver(RunStore):
    """Takes those outcomes that belong to the pack, and drops the others."""

    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        rows = self._find(design).layout.rows(pack)
        super().commit(design, pack, [one for one in outcomes if one.row in rows], **told)


class OtherRowsToTheirPack(RunStore):
    """Commits each outcome where it belongs, whatever pack was named."""

    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        size = self._find(design).layout.pack
        for own in sorted({one.row // size for one in outcomes}):
            super().commit(design, own, [one for one in outcomes if one.row // size == own], **told)


class LastOfTwo(RunStore):
    """Of a row that comes twice, keeps the last outcome."""

    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        super().commit(design, pack, list({one.row: one for one in outcomes}.values()), **told)


class DoneAgain(RunStore):
    """Replaces a row that is done."""

    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        self._writing(design)
        done = self._find(design).ledger.record(pack).done()
        if again := [one.row for one in outcomes if one.row in done]:
            self.forget(design, again)
        super().commit(design, pack, outcomes, **told)


class DoneStays(RunStore):
    """Drops the outcome of a row that is done."""

    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        done = self._find(design).ledger.record(pack).done()
        super().commit(design, pack, [one for one in outcomes if one.row not in done], **told)


class _Filling(RunStore):
    """Makes of outcomes that do not fit some that do."""

    def fitting(self, values: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return values

    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        made = [
            one
            if one.failure
            else replace(one, outputs={name: self.fitting(one.outputs.get(name)) for name in self.measures})  # type: ignore[misc]
            for one in outcomes
        ]
        super().commit(design, pack, made, **told)


class AnyShape(_Filling):
    def fitting(self, values: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return None if values is None else np.resize(values, self.t)


class NotFinite(_Filling):
    def fitting(self, values: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return None if values is None else np.nan_to_num(values)


class MissingMeasures(_Filling):
    def fitting(self, values: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return np.zeros(self.t, dtype=np.float32) if values is None else values


class FirstOnesKept(RunStore):
    """Commits one after the other: those before the one that is refused stay."""

    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        for one in outcomes:
            super().commit(design, pack, [one], **told)


class LastPackOnly(RunStore):
    """Takes a pack that the design does not have for its last one."""

    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        super().commit(design, min(pack, self._find(design).layout.packs - 1), outcomes, **told)


class UnplannedAccepted(RunStore):
    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        runs = self._writing(design)
        if runs.planned.is_complete():
            super().commit(design, pack, outcomes, **told)


class WritesAfterItsEnd(RunStore):
    """Writes without its lease."""

    def _writing(self, design: str) -> Any:
        return self._find(design) if hasattr(self, "had_lease") else super()._writing(design)

    def close(self) -> None:
        if self._lease:
            self.had_lease = True
        super().close()


class FailedForGood(RunStore):
    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        failed = {one.row for one in self.failures(design)}
        super().commit(design, pack, [one for one in outcomes if one.row not in failed], **told)


class NoProvenance(RunStore):
    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        kept, self.provenance = self.provenance, None
        super().commit(design, pack, outcomes, **told)
        self.provenance = kept


class PlansOfAnyType(RunStore):
    """Casts what it is given to the types that are stored."""

    def write_plan(self, design: str, start: int, masks: Any, seeds: Any, subsets: Any, repeats: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().write_plan(design, start, masks, np.asarray(seeds).astype(np.uint32), subsets, repeats)


class PlansOfAnyShape(RunStore):
    def write_plan(self, design: str, start: int, masks: Any, seeds: Any, subsets: Any, repeats: Any) -> None:
        super().write_plan(design, start, masks[:, : self.n], seeds, subsets, repeats)


# What was kept of the runs


class NoReasons(RunStore):
    def failures(self, design: str) -> list[Any]:
        return []


class _Summarizing(RunStore):
    """Says something else of a pack than its record."""

    def changed(self, summary: Any) -> Any:
        return summary

    def summaries(self, design: str) -> list[Any]:
        return [self.changed(one) for one in super().summaries(design)]


class SecondsLie(_Summarizing):
    def changed(self, summary: Any) -> Any:
        return replace(summary, seconds=tuple(2 * one for one in summary.seconds))


class HashesLie(_Summarizing):
    def changed(self, summary: Any) -> Any:
        return replace(summary, hashes=tuple(one and "0" * 32 for one in summary.hashes))


class StatesLie(_Summarizing):
    def changed(self, summary: Any) -> Any:
        return replace(summary, states=np.where(summary.states == FAILED, DONE, summary.states).astype(np.int8))


class RowsOutOfOrder(_Summarizing):
    def changed(self, summary: Any) -> Any:
        return replace(summary, rows=summary.rows[::-1], hashes=summary.hashes[::-1], seconds=summary.seconds[::-1])


class CommitsUnsaid(_Summarizing):
    def changed(self, summary: Any) -> Any:
        return replace(summary, commits=summary.commits[-1:])


class FailuresUnsaid(_Summarizing):
    def changed(self, summary: Any) -> Any:
        return replace(summary, failures=())


class CheckpointsUnsaid(_Summarizing):
    def changed(self, summary: Any) -> Any:
        return replace(summary, checkpoints={})


class FirstPackOnly(RunStore):
    def summaries(self, design: str) -> list[Any]:
        return super().summaries(design)[:1]


class SummariesOfTheStart(RunStore):
    """Looks once, and never again."""

    def summaries(self, design: str) -> list[Any]:
        kept: dict[str, list[Any]] = self.__dict__.setdefault("kept", {})
        return kept.setdefault(design, super().summaries(design))


class NotBegun(RunStore):
    @property
    def has_begun(self) -> bool:
        return False


class BegunByFailures(RunStore):
    @property
    def has_begun(self) -> bool:
        return any((self.states(name) != PENDING).any() for name in self.designs)


class NoClock(RunStore):
    def begin_work(self) -> None:
        pass


class ClockFromZero(RunStore):
    """Forgets the sessions before."""

    def begin_work(self) -> None:
        with mock.patch.object(RunStore, "worked_seconds", return_value=0.0):
            super().begin_work()


class AlwaysNew(RunStore):
    @classmethod
    def open(cls, paths: SweepPaths, *, write: bool = False) -> RunStore:
        store = super().open(paths, write=write)
        store.is_new = True
        return store


# Forgetting


class NothingForgotten(RunStore):
    def forget(self, design: str, rows: Iterable[int]) -> None:
        pass


class WholePackForgotten(RunStore):
    def forget(self, design: str, rows: Iterable[int]) -> None:
        layout = self.designs[design]
        super().forget(design, [row for one in rows for row in layout.rows(one // layout.pack)])


class UnknownRowsForgotten(RunStore):
    def forget(self, design: str, rows: Iterable[int]) -> None:
        super().forget(design, [row for row in rows if 0 <= row < self.designs[design].runs])


# Planning and growing


class AlwaysPlanned(RunStore):
    def planned(self, design: str) -> bool:
        return True


class Shrinking(RunStore):
    def extend(self, design: str, runs: int) -> None:
        if runs >= self.designs[design].runs:
            super().extend(design, runs)


class AllGrow(RunStore):
    """Lets the other designs grow with the one that was named."""

    def extend(self, design: str, runs: int) -> None:
        super().extend(design, runs)
        for name, layout in self.designs.items():
            if name != design and layout.runs < runs:
                super().extend(name, runs)


# Verifying


class NoDamage(RunStore):
    def verify(self, design: str, progress: Any = None) -> list[Damage]:
        return []


class FirstDamage(RunStore):
    def verify(self, design: str, progress: Any = None) -> list[Damage]:
        return super().verify(design, progress)[:1]


class CheckpointsUnread(RunStore):
    def verify(self, design: str, progress: Any = None) -> list[Damage]:
        return [damage for damage in super().verify(design, progress) if damage.what != "checkpoint"]


class NoProgress(RunStore):
    def verify(self, design: str, progress: Any = None) -> list[Damage]:
        return super().verify(design)


class FirstDesignVerified(RunStore):
    def verify(self, design: str, progress: Any = None) -> list[Damage]:
        self._find(design)
        return super().verify(next(iter(self.designs)), progress)


# Readers and writers


class NoLease(RunStore):
    @classmethod
    def open(cls, paths: SweepPaths, *, write: bool = False) -> RunStore:
        class Anyone:
            def release(self) -> None:
                pass

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_store, "Lease", lambda paths: Anyone())
            return super().open(paths, write=write)


class NoSnapshot(RunStore):
    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with nullcontext():
            yield


class SnapshotForEver(RunStore):
    """A moment that does not end."""

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self.moments = [*getattr(self, "moments", []), super().snapshot()]
        self.moments[-1].__enter__()
        yield


class SnapshotOfOneDesign(RunStore):
    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with next(iter(self._designs.values())).ledger.snapshot():
            yield


class ReaderOfTheStart(RunStore):
    """A reader that looks once, and never again."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if self._lease is None:
            self.moment = self.snapshot()
            self.moment.__enter__()


class ReaderCleans(RunStore):
    """Removes what is being written, whoever writes it."""

    @classmethod
    def open(cls, paths: SweepPaths, *, write: bool = False) -> RunStore:
        run_store.remove_partials(paths.runs, paths.ledger, paths.checkpoints)
        return super().open(paths, write=write)


class ReaderLeavesItsName(RunStore):
    @classmethod
    def open(cls, paths: SweepPaths, *, write: bool = False) -> RunStore:
        store = super().open(paths, write=write)
        if not write:
            (paths.root / "reader").write_text(str(os.getpid()))
        return store


# Opening


class AnyVersion(RunStore):
    @classmethod
    def open(cls, paths: SweepPaths, *, write: bool = False) -> RunStore:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("orchestrator.store.manifest.FORMAT_VERSION", 99)
            return super().open(paths, write=write)


class AnyError(RunStore):
    @classmethod
    def open(cls, paths: SweepPaths, *, write: bool = False) -> RunStore:
        if not paths.runs.exists():
            raise FileNotFoundError(paths.runs)
        return super().open(paths, write=write)


def _nameless(name: str, answer: Callable[[], Any]) -> type[RunStore]:
    """Return a store that answers a question about a design that it does not have."""

    def asked(self: RunStore, design: str, *arguments: Any, **options: Any) -> Any:
        if design not in self.designs:
            return answer()
        return getattr(RunStore, name)(self, design, *arguments, **options)

    return type(f"AnyDesign_{name}", (RunStore,), {name: asked})


NAMELESS = [_nameless(name, list) for name in ("failures", "summaries", "lost", "verify")]
NAMELESS += [
    _nameless("planned", bool),
    _nameless("finished", lambda: np.zeros(0, np.int64)),
    _nameless("forget", list),
]

OUTPUTS_OF_ROWS = "the outputs through 'margin' of rows done and not are not what they should be"
STATES = "the states of the rows are not what they should be"
WRONG: list[tuple[type[RunStore], str, str]] = [
    (ZeroWhereNothingIs, "check_commits", f"{OUTPUTS_OF_ROWS}.* expected nan"),
    (DoublePrecision, "check_plan", "subsets are float64, expected int64"),
    (FirstRows, "check_plan", "masks of rows 1"),
    (
        OutputsUnchecked,
        "check_reads_of_damage",
        "json, gone since .* `outputs`: the values are not what they should be, first at .* nan",
    ),
    (
        OutputsByTheirChecksumOnly,
        "check_reads_of_damage",
        "/c.1.0, replaced by another since .* `outputs`: the values are not what",
    ),
    (PlanUnchecked, "check_reads_of_damage", "masks/c.1.0, cut.* the values are not what they should be"),
    (
        SeedsByTheirChecksumOnly,
        "check_reads_of_damage",
        "seeds/c.1, replaced by another since .* are not what",
    ),
    (
        RememberedForEver,
        "check_reads_of_damage",
        "since the store was opened, read through `outputs`: the values are not",
    ),
    (CheckpointsUnchecked, "check_reads_of_damage", "safetensors, gone since .* raises FileNotFoundError"),
    (CheckpointsThatAreThere, "check_reads_of_damage", r"safetensors, cut .* the values are \[\], expected"),
    (CheckpointsOfAnyRow, "check_rows_that_are_not_there", "`checkpoints` of row -1 is not refused"),
    (FinishedWithoutTheLost, "check_reads_of_damage", "json, gone.* read through `finished`"),
    (FinishedWithTheFailed, "check_failures", r"the finished rows are \[0\], expected \[\]"),
    (NothingLost, "check_reads_of_damage", r"json, gone, is not among the lost packs, which are \[\]"),
    (LostRowsAreNaN, "check_reads_of_damage", "json, gone.* read through `outputs`"),
    (StretchesAreCut, "check_rows_that_are_not_there", r"`outputs` of rows 0\.\.10 is not refused"),
    (StatesThatCanBeWritten, "check_copies", "after a caller wrote into them, the states are not what they should be"),
    (RecordsOfAnyPack, "check_rows_that_are_not_there", "`record` of pack 3 is not refused"),
    (NoRecord, "check_commits", "verify finds ledger damaged where nothing was harmed: missing, though its pack was"),
    (NothingListed, "check_damage", r"ledger/fit/00000\d.json, gone, is 0 damages to verify, expected one"),
    (RecordFirst, "check_crashes", "not what they should be|refuses what should be whole|finds .* damaged"),
    (OtherRowsPassedOver, "check_commits_that_do_not_belong", "committing a row of another pack is not refused"),
    (OtherRowsToTheirPack, "check_commits_that_do_not_belong", "committing a row of another pack is not refused"),
    (LastOfTwo, "check_commits_that_do_not_belong", "committing a row twice is not refused"),
    (DoneAgain, "check_commits_that_do_not_belong", "committing a done row is not refused"),
    (DoneStays, "check_commits_that_do_not_belong", "committing a done row is not refused"),
    (AnyShape, "check_commits_that_do_not_belong", "committing too few outputs is not refused"),
    (NotFinite, "check_commits_that_do_not_belong", "committing outputs that are NaN is not refused"),
    (MissingMeasures, "check_commits_that_do_not_belong", "committing outputs that lack a measure is not refused"),
    (
        FirstOnesKept,
        "check_commits_that_do_not_belong",
        "the states after a row of another pack after one that fits was",
    ),
    (
        LastPackOnly,
        "check_commits_that_do_not_belong",
        "committing to a pack beyond the last one is not refused",
    ),
    (
        UnplannedAccepted,
        "check_commits_that_do_not_belong",
        "committing a row of a design that has no plan is not refused",
    ),
    (WritesAfterItsEnd, "check_one_writer", "committing in a store that was closed is not refused"),
    (FailedForGood, "check_failures", STATES),
    (NoProvenance, "check_commits", "the record has the commits .*None.*, expected"),
    (PlansOfAnyType, "check_plans_that_do_not_fit", "a plan with seeds that are negative is not refused"),
    (PlansOfAnyShape, "check_plans_that_do_not_fit", "a plan with masks of more examples is not refused"),
    (NoReasons, "check_failures", "the failures are"),
    (SecondsLie, "check_commits", r"the summary of pack 2 has the seconds \(0.2"),
    (HashesLie, "check_commits", "the summary of pack 2 has the hashes"),
    (StatesLie, "check_failures", "the summary of pack 0 has the states"),
    (RowsOutOfOrder, "check_commits", r"the summary of pack 2 has the rows \(9, 8\), expected \(8, 9\)"),
    (CommitsUnsaid, "check_commits", "the record of pack 0 has 2 commits, its summary 1"),
    (FailuresUnsaid, "check_failures", r"the summary of pack 0 has the failures \[\], expected \[0\]"),
    (CheckpointsUnsaid, "check_checkpoints", r"the summary of pack 0 has the checkpoints \{\}"),
    (FirstPackOnly, "check_commits", "row 8 is done or failed, and its pack has no summary"),
    (SummariesOfTheStart, "check_readers", "row 0 is done or failed, and its pack has no summary"),
    (NotBegun, "check_commits", "`has_begun` is False, and 2 rows are done"),
    (BegunByFailures, "check_failures", "`has_begun` is True, and 0 rows are done"),
    (NoClock, "check_clock", "a commit after 0.1 seconds of work says None"),
    (ClockFromZero, "check_clock", "a second session begins at"),
    (AlwaysNew, "check_creation", "a store that was opened says that it was created in this session"),
    (NothingForgotten, "check_forgetting", STATES),
    (WholePackForgotten, "check_forgetting", STATES),
    (UnknownRowsForgotten, "check_rows_that_are_not_there", "`forget` of row -1 is not refused"),
    (AlwaysPlanned, "check_plan", "no plan is written, but `planned` is true"),
    (AlwaysPlanned, "check_growth", "`planned` before its new rows"),
    (Shrinking, "check_growth", "cutting a design is not refused"),
    (AllGrow, "check_growth", "a design grew, and another one has 11 rows, expected 3"),
    (NoDamage, "check_damage", "is 0 damages to verify, expected one"),
    (FirstDamage, "check_verification", r"all packs are damaged, verify finds damage in the packs \[0\]"),
    (CheckpointsUnread, "check_damage", "checkpoints/fit/5/1.safetensors, cut, is 0 damages"),
    (NoProgress, "check_verification", r"verify told its progress as \[\], expected"),
    (FirstDesignVerified, "check_verification", "verify of one design finds the damage of another"),
    (NoLease, "check_one_writer", "a second writer is not refused"),
    (NoSnapshot, "check_snapshots", "within a snapshot the answers change: the states of fit"),
    (SnapshotForEver, "check_snapshots", STATES),
    (SnapshotOfOneDesign, "check_snapshots", "within a snapshot the answers change: the states of held-out"),
    (ReaderOfTheStart, "check_readers", STATES),
    (ReaderCleans, "check_readers", "opening a store for reading has changed ledger/fit/.half.partial"),
    (ReaderLeavesItsName, "check_readers", "opening a store for reading has changed reader"),
    (AnyVersion, "check_refusals", "opening a store of a newer format is not refused"),
    (AnyError, "check_refusals", "opening where no store is raises FileNotFoundError, expected StoreError"),
    *[(kind, "check_names", f"`{kind.__name__[10:]}` of an unknown design is not refused") for kind in NAMELESS],
]


def name(value: Any) -> str:
    return str(getattr(value, "__name__", "")) or "says"


@pytest.mark.parametrize(("kind", "check", "message"), WRONG, ids=name)
def test_a_broken_store_is_told(kind: type[RunStore], check: str, message: str, folders: Any) -> None:
    with pytest.raises(AssertionError, match=message) as caught:
        getattr(testing, check)(folders(kind))
    assert "\n" not in str(caught.value)
