"""The ledger: which rows are done. One small JSON record a pack, written after its rows, each replaced atomically.

Data alone never counts as completion: a missing Zarr chunk reads as fill, and bytes may be there before their
checkpoints.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from orchestrator.store.durable import refusing, sync, write_atomically
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
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
class _Summary:
    """What is kept in memory of one record file, and the stamp by which a change of the file is noticed."""

    stamp: _Stamp
    states: NDArray[np.int8]
    failures: tuple[FailedRun, ...]


class Ledger:
    """The ledger records of one design."""

    def __init__(self, paths: SweepPaths, design: DesignLayout):
        self._paths = paths
        self._design = design
        self._seen: dict[int, _Summary] = {}

    def states(self) -> NDArray[np.int8]:
        """Return PENDING, DONE or FAILED of every row, (m,) int8. Raises StoreError naming a damaged record."""
        self._refresh()
        pack, packs = self._design.pack, self._design.packs
        states = np.zeros(packs * pack, dtype=np.int8)
        for number, summary in self._seen.items():
            if number < packs:
                states[number * pack : (number + 1) * pack] = summary.states
        return states[: self._design.runs]

    def failures(self) -> list[FailedRun]:
        """Return the failed runs, by row."""
        self._refresh()
        return sorted((f for summary in self._seen.values() for f in summary.failures), key=lambda failed: failed.row)

    def record(self, pack: int) -> PackRecord:
        """Return the record of a pack, an empty one when there is none. Raises StoreError when it is damaged."""
        path = self._paths.record(self._design.name, pack)
        with refusing("read", path):
            content = path.read_bytes() if path.exists() else None
        return PackRecord(design=self._design.name, pack=pack) if content is None else self._parse(content, pack)

    def write(self, record: PackRecord) -> None:
        """Write a record; its rows count from the moment this returns."""
        path = self._paths.record(record.design, record.pack)
        write_atomically(path, record.model_dump_json(exclude_none=True).encode())
        self._seen[record.pack] = self._summarized(record, _stamp(path.stat()))

    def erase(self, pack: int) -> None:
        """Remove the record of a pack: all its rows are pending again."""
        path = self._paths.record(self._design.name, pack)
        with refusing("remove", path):
            path.unlink(missing_ok=True)
            sync(path.parent)

    def plan(self) -> PlanRecord:
        """Return what is known to be planned.

        That is nothing when the record is missing or damaged: the plan follows from the configuration and is then
        written again, and the hashes of the done rows guard it.
        """
        path = self._paths.plan_record(self._design.name)
        with refusing("read", path):
            content = path.read_bytes() if path.exists() else b""
        try:
            record = PlanRecord.model_validate_json(content)
        except ValidationError:
            return PlanRecord(runs=0, packs=())
        fits = record.runs <= self._design.runs and len(record.packs) == -(-record.runs // self._design.pack)
        return record if fits else PlanRecord(runs=0, packs=())

    def write_plan(self, plan: PlanRecord) -> None:
        """Write down what is planned."""
        write_atomically(self._paths.plan_record(self._design.name), plan.model_dump_json().encode())

    def _refresh(self) -> None:
        """Read the records that are new or were replaced."""
        folder = self._paths.design_ledger(self._design.name)
        found: dict[int, _Summary] = {}
        with refusing("read", folder):
            for entry in list(os.scandir(folder)) if folder.exists() else []:
                stem, _, ending = entry.name.partition(".")
                if stem.isdecimal() and ending == "json":
                    with suppress(FileNotFoundError):  # the writer made its rows pending just now
                        found[int(stem)] = self._summary(int(stem), entry.stat())
        self._seen = found

    def _summary(self, pack: int, status: os.stat_result) -> _Summary:
        """Return what is to be remembered of a record, read again only when the file was replaced."""
        stamp = _stamp(status)
        seen = self._seen.get(pack)
        if seen and seen.stamp == stamp:
            return seen
        return self._summarized(self._parse(self._paths.record(self._design.name, pack).read_bytes(), pack), stamp)

    def _summarized(self, record: PackRecord, stamp: _Stamp) -> _Summary:
        states = np.zeros(self._design.pack, dtype=np.int8)
        failures = []
        for row in record.rows:
            states[row.row - record.pack * self._design.pack] = DONE if row.state == "done" else FAILED
            if row.failure:
                failures.append(FailedRun(row.row, row.failure.kind, row.failure.message, row.failure.traceback))
        return _Summary(stamp, states, tuple(failures))

    def _parse(self, content: bytes, pack: int) -> PackRecord:
        """Return the record. Raises StoreError when it does not parse or speaks of other rows."""
        path = self._paths.record(self._design.name, pack)
        first = pack * self._design.pack
        try:
            record = PackRecord.model_validate_json(content)
            rows = [row.row for row in record.rows]
            if (record.design, record.pack) != (self._design.name, pack) or len(set(rows)) != len(rows):
                raise ValueError
            if rows and not first <= min(rows) <= max(rows) < first + self._design.pack:
                raise ValueError
        except ValueError as error:
            raise DamagedRecord(
                f"{path} is damaged: run `counterfactory verify` on the sweep, then `counterfactory run` to put it right"
            ) from error
        return record
