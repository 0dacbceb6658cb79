"""The ledger: which rows are done. One small JSON record a pack, written after its rows, each replaced atomically.

Data alone never counts as completion: a missing Zarr chunk reads as fill, and bytes may be there before their
checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from orchestrator.store.committed import CommittedPacks
from orchestrator.store.damage import REMEDY
from orchestrator.store.durable import refusing, write_atomically
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import SMALL, entries_of, is_there, read_plain
from workers.errors import StoreError
from workers.runs import Failure

PENDING: Final = 0
DONE: Final = 1
FAILED: Final = 2


class DamagedRecord(StoreError):
    """A ledger record that makes no sense."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RowRecord(_Frozen):
    """What became of one row."""

    row: NonNegativeInt
    state: Literal["done", "failed"]
    seconds: float
    """Time the run took, in seconds."""
    hash: str | None = None
    """Hash of a done row: see hashes.py."""
    checkpoints: dict[int, str] = {}
    """Hash of each checkpoint file, by epoch."""
    failure: Failure | None = None


class CommitRecord(_Frozen):
    """One delivery of rows."""

    worker: str
    started: float
    """Unix time, in seconds."""
    seconds: float
    """From the start of its first part to the end of its last."""
    rows: tuple[int, ...]
    provenance: str | None = None
    """Id of what they were trained under, in provenance.json; None where nobody recorded it."""
    clock: float | None = None
    """Seconds of work on the sweep up to its end, over all sessions (WorkClock); None where nobody recorded it."""

    @property
    def finished(self) -> float:
        """Unix time, in seconds."""
        return self.started + self.seconds


class PackRecord(_Frozen):
    """The ledger record of a pack. Rows that are not listed are pending."""

    format: Literal[1] = 1
    design: str
    pack: NonNegativeInt
    commits: tuple[CommitRecord, ...] = ()
    rows: tuple[RowRecord, ...] = ()

    def done(self) -> dict[int, RowRecord]:
        """Return the done rows."""
        return {row.row: row for row in self.rows if row.state == "done"}


class PlanRecord(_Frozen):
    """Says that the plan of the first `runs` rows is written, and with what content."""

    format: Literal[1] = 1
    runs: NonNegativeInt
    packs: tuple[str, ...]
    """Hash of each pack's rows of the plan."""


@dataclass(frozen=True)
class FailedRun:
    """A run that has no outputs, and why."""

    row: int
    kind: str
    """Class name of the exception."""
    message: str
    traceback: str


_Stamp = tuple[int, int, int]


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino


@dataclass(frozen=True)
class PackSummary:
    """What is kept in memory of a pack's record, so that no question but one for the record itself reads it again.

    Rows that the store does not know of, because another process has added them since it was opened, are left out.
    """

    pack: int
    states: NDArray[np.int8]
    """(pack,) PENDING, DONE or FAILED of its rows; a last pack that is shorter is filled up with PENDING."""
    rows: tuple[int, ...]
    """The rows that are done or failed, in the record's order."""
    seconds: tuple[float, ...]
    """Time that each of `rows` took, in seconds."""
    hashes: tuple[str | None, ...]
    """Hash of each of `rows`; None for one that failed."""
    checkpoints: Mapping[int, Mapping[int, str]]
    """Hash of each checkpoint file by epoch, of the done rows that kept any."""
    commits: tuple[CommitRecord, ...]
    """The deliveries of the pack."""
    failures: tuple[FailedRun, ...]
    """The rows that failed, and why."""

    def done(self) -> tuple[int, ...]:
        """Return the done rows."""
        first = self.pack * len(self.states)
        return tuple(row for row in self.rows if self.states[row - first] == DONE)


class Ledger:
    """The ledger records of one design.

    A reader looks at the folder once for every question, and reads only records that are new or were replaced. Within a
    `snapshot` it looks once for all questions. An exclusive ledger, whose process holds the lease, looks once and never again:
    nobody else writes, and what it writes itself it knows.
    """

    def __init__(self, paths: SweepPaths, design: DesignLayout, *, exclusive: bool = False):
        self._paths = paths
        self._design = design
        self._exclusive = exclusive
        self._snapshots = 0
        """How many snapshots are being taken, one within the other."""
        self._known = False
        """Whether what is kept in memory is what was found, or written, last."""
        self._seen: dict[int, tuple[_Stamp, PackSummary]] = {}
        self._states = np.zeros(design.packs * design.pack, dtype=np.int8)
        self._list = CommittedPacks(paths.committed(design.name))
        self._listed: set[int] | None = None
        """The packs that are known to be listed, where nobody else lists any."""
        self._lost: tuple[int, ...] = ()

    def states(self, start: int = 0, stop: int | None = None) -> NDArray[np.int8]:
        """Return PENDING, DONE or FAILED of rows start..stop, (r,) int8. Raises StoreError naming a damaged record."""
        self._look()
        return self._states[start : self._design.runs if stop is None else stop].copy()

    def summaries(self) -> list[PackSummary]:
        """Return what is known of every pack that has a record, by pack."""
        self._look()
        return [self._seen[pack][1] for pack in sorted(self._seen) if pack < self._design.packs]

    def summary(self, pack: int) -> PackSummary:
        """Return what is known of a pack, also when it has no record."""
        self._look()
        return self._seen[pack][1] if pack in self._seen else self._summarized(self._empty(pack))

    def read(self, pack: int) -> PackSummary:
        """Return the same from the record as it is on the disk now. Raises StoreError when it is damaged."""
        return self._summarized(self.record(pack))

    @property
    def exclusive(self) -> bool:
        """Whether nobody else writes."""
        return self._exclusive

    def path(self, pack: int) -> Path:
        """Return where the record of a pack is."""
        return self._paths.record(self._design.name, pack)

    @property
    def plan_path(self) -> Path:
        """The record of what is planned."""
        return self._paths.plan_record(self._design.name)

    def lost(self) -> tuple[int, ...]:
        """Return the packs that were committed, and yet have no record: their rows are pending, and that is damage."""
        self._look()
        return self._lost

    def is_lost(self, pack: int) -> bool:
        """Say whether a pack was committed and has no record, as it is on the disk now; other records may be damaged."""
        return pack in self._list.read() and not is_there(self.path(pack))

    def failures(self) -> list[FailedRun]:
        """Return the failed runs, by row."""
        return sorted((f for summary in self.summaries() for f in summary.failures), key=lambda failed: failed.row)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Answer all questions inside from one look at the folder, taken with the first of them."""
        if not self._exclusive and not self._snapshots:
            self._known = False
        self._snapshots += 1
        try:
            yield
        finally:
            self._snapshots -= 1

    def share(self) -> None:
        """Take note that others may write from now on."""
        self._exclusive = False

    def resize(self, design: DesignLayout) -> None:
        """Take note of the design's new number of rows."""
        states = np.zeros(design.packs * design.pack, dtype=np.int8)
        states[: len(self._states)] = self._states
        self._design, self._states = design, states

    def record(self, pack: int) -> PackRecord:
        """Return the record of a pack, an empty one when there is none. Raises StoreError when it is damaged."""
        path = self.path(pack)
        with refusing("read", path):
            content = read_plain(path, SMALL) if is_there(path) else None
        return self._empty(pack) if content is None else self._parse(content, pack)

    def _empty(self, pack: int) -> PackRecord:
        return PackRecord(design=self._design.name, pack=pack)

    def write(self, record: PackRecord) -> None:
        """Write a record; its rows count from the moment this returns."""
        path = self._paths.record(record.design, record.pack)
        with self._changing() as known:
            # What a failed run said may hold anything that its code had at hand.
            failed = any(row.failure for row in record.rows)
            write_atomically(path, record.model_dump_json(exclude_none=True).encode(), private=failed)
            self._list_committed(record.pack, known)
            self._remember(_stamp(os.lstat(path)), self._summarized(record))

    def erase(self, pack: int) -> None:
        """Make all rows of a pack pending, whatever its record was; an empty one is left, for a record that is gone is damage."""
        self.write(self._empty(pack))

    def _list_committed(self, pack: int, known: bool) -> None:
        """List a pack whose record is on the disk; whether all other records are `known`, and need not be looked for."""
        if self._listed is None or not self._exclusive:
            there = {*self._seen, pack} if known and self._exclusive else {number for number, _ in self._records()}
            self._listed = set(self._list.bring_up_to_date(there))
        elif pack not in self._listed:
            self._list.add(pack)
            self._listed.add(pack)

    def plan(self) -> PlanRecord:
        """Return what is known to be planned.

        That is nothing when the record is missing or damaged: the plan follows from the configuration and is then
        written again, and the hashes of the done rows guard it. A reader may find that more is planned than it knows of.
        """
        path = self.plan_path
        with refusing("read", path):
            content = read_plain(path, SMALL) if is_there(path) else b""
        try:
            record = PlanRecord.model_validate_json(content)
        except ValidationError:
            return PlanRecord(runs=0, packs=())
        fits = len(record.packs) == -(-record.runs // self._design.pack)
        known = record.runs <= self._design.runs or not self._exclusive
        return record if fits and known else PlanRecord(runs=0, packs=())

    def write_plan(self, plan: PlanRecord) -> None:
        """Write down what is planned."""
        write_atomically(self.plan_path, plan.model_dump_json().encode())

    @contextmanager
    def _changing(self) -> Iterator[bool]:
        """Know nothing of a change that is cut off: then the folder says how far it came. Give what was known before."""
        known, self._known = self._known, False
        yield known
        self._known = known

    def _look(self) -> None:
        if not (self._known and (self._exclusive or self._snapshots)):
            self.refresh()

    def refresh(self) -> None:
        """Look at the folder now, and read the records that are new or were replaced."""
        listed = self._list.read()  # before the records: a pack is listed after its record is there
        found: dict[int, tuple[_Stamp, PackSummary]] = {}
        for pack, entry in self._records():
            with suppress(FileNotFoundError):  # the writer replaced it just now
                found[pack] = self._summary(pack, _stamp(entry.stat(follow_symlinks=False)))
        self._lost = tuple(
            pack
            for pack in sorted(listed - found.keys())
            if pack < self._design.packs and not is_there(self.path(pack))
        )
        self._seen = {}
        self._states[:] = PENDING
        for stamp, summary in found.values():
            self._remember(stamp, summary)
        self._known = True

    def _records(self) -> list[tuple[int, os.DirEntry[str]]]:
        """Return the files of the records, by pack."""
        folder = self._paths.design_ledger(self._design.name)
        with refusing("read", folder):
            entries = entries_of(folder)
        parts = ((entry, *entry.name.partition(".")) for entry in entries)
        return [(int(stem), entry) for entry, stem, _, ending in parts if stem.isdecimal() and ending == "json"]

    def _remember(self, stamp: _Stamp, summary: PackSummary) -> None:
        self._seen[summary.pack] = (stamp, summary)
        self._lost = tuple(pack for pack in self._lost if pack != summary.pack)
        if summary.pack < self._design.packs:  # another process may have made the design larger
            self._states[summary.pack * self._design.pack : (summary.pack + 1) * self._design.pack] = summary.states

    def _summary(self, pack: int, stamp: _Stamp) -> tuple[_Stamp, PackSummary]:
        """Return what is to be remembered of a record, read again only when the file was replaced."""
        seen = self._seen.get(pack)
        if seen and seen[0] == stamp:
            return seen
        return stamp, self._summarized(self._parse(read_plain(self.path(pack), SMALL), pack))

    def _summarized(self, record: PackRecord) -> PackSummary:
        states = np.zeros(self._design.pack, dtype=np.int8)
        # Another process may have made the design larger: its new rows are none of a reader's that opened it before.
        known = [row for row in record.rows if row.row < self._design.runs]
        for row in known:
            states[row.row - record.pack * self._design.pack] = DONE if row.state == "done" else FAILED
        return PackSummary(
            pack=record.pack,
            states=states,
            rows=tuple(row.row for row in known),
            seconds=tuple(row.seconds for row in known),
            hashes=tuple(row.hash for row in known),
            checkpoints={row.row: row.checkpoints for row in known if row.checkpoints},
            commits=record.commits,
            failures=tuple(
                FailedRun(row.row, row.failure.kind, row.failure.message, row.failure.traceback)
                for row in known
                if row.failure
            ),
        )

    def _parse(self, content: bytes, pack: int) -> PackRecord:
        """Return the record. Raises StoreError when it does not parse or speaks of other rows."""
        path = self.path(pack)
        first = pack * self._design.pack
        try:
            record = PackRecord.model_validate_json(content)
            rows = [row.row for row in record.rows]
            if (record.design, record.pack) != (self._design.name, pack) or len(set(rows)) != len(rows):
                raise ValueError
            if rows and not first <= min(rows) <= max(rows) < first + self._design.pack:
                raise ValueError
        except ValueError as error:
            raise DamagedRecord(f"{path} is damaged: {REMEDY}") from error
        return record
