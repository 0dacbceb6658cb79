"""The runs of one design in the store: its plan, its outputs, and the order of writing that makes a crash harmless.

Order of a commit: checkpoints, chunks, fsync, then the ledger record. A crash before the last step leaves
the rows pending.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.arrays import PLAN, REMEDY, RunArray, specs
from orchestrator.store.checkpoints import read_checkpoint, write_checkpoint
from orchestrator.store.durable import refusing, sync, sync_all
from orchestrator.store.hashes import plan_hash, row_hashes
from orchestrator.store.ledger import DONE, CommitRecord, DamagedRecord, Ledger, PackRecord, PlanRecord, RowRecord
from orchestrator.store.manifest import DesignLayout, Manifest
from orchestrator.store.paths import SweepPaths
from workers.errors import StoreError
from workers.runs import Checkpoint, Outcome


class DesignRuns:
    """One design of an open store. Used through RunStore, which says what each method takes and returns."""

    plan: dict[str, RunArray]
    """masks, seeds, subsets, repeats."""
    measured: dict[str, RunArray]
    """The outputs, by measure."""
    planned_packs: dict[int, tuple[int, str]]
    """Of each pack whose plan was written: how many rows it had, and their hash."""

    def __init__(self, paths: SweepPaths, manifest: Manifest, layout: DesignLayout, write: bool):
        self.layout = layout
        self.ledger = Ledger(paths, layout, exclusive=write)
        self.paths = paths
        self._writable = write
        folder = paths.runs / layout.name
        found = {name: RunArray.open(folder / name, spec, layout, write) for name, spec in specs(manifest).items()}
        self.plan = {name: found[name] for name in PLAN}
        self.measured = {name: found[f"outputs/{name}"] for name in manifest.measures}
        self._load_planned()

    def share(self) -> None:
        """Take note that others may write from now on: the lease is given back."""
        self._writable = False
        self.ledger.share()

    # The plan

    def planned(self) -> bool:
        """Return whether the plan of every row is written and durable."""
        if not self._writable:
            self._load_planned()
        return self._durable_runs == self.layout.runs

    def write_plan(self, start: int, plan: Mapping[str, NDArray[Any]]) -> None:
        """Write the plan of one or more packs; durable when the last pack's is written."""
        rows = self._whole_packs(start, len(plan["masks"]))
        for name, values in plan.items():
            array = self.plan[name].array
            if values.shape != (len(rows), *array.shape[1:]):
                raise ValueError(f"{name} has shape {values.shape}, expected {(len(rows), *array.shape[1:])}")
            if not np.array_equal(values, values.astype(array.dtype)):
                raise ValueError(f"{name} holds values that are not of type {array.dtype}")
        first, last = start // self.layout.pack, (rows.stop - 1) // self.layout.pack
        packs = {pack: self._rows_in(plan, pack, start) for pack in range(first, last + 1)}
        for pack, part in packs.items():
            self._refuse_other_plan(pack, part)
        for name in PLAN:
            self._unsynced += self.plan[name].write(rows, plan[name].astype(self.plan[name].array.dtype))
        for pack, part in packs.items():
            count = len(part["masks"])
            self._complete += self.planned_packs.get(pack, (0, ""))[0] != count
            self.planned_packs[pack] = (count, plan_hash(part, count))
        if self._complete == self.layout.packs:
            self._make_plan_durable()

    def _rows_in(self, plan: Mapping[str, NDArray[Any]], pack: int, start: int) -> dict[str, NDArray[Any]]:
        """Return the rows of one pack, of a plan whose first row is `start`."""
        rows = self.layout.rows(pack)
        return {name: values[rows.start - start : rows.stop - start] for name, values in plan.items()}

    def _refuse_other_plan(self, pack: int, plan: Mapping[str, NDArray[Any]]) -> None:
        """Raise StoreError when rows of a pack that were planned before would change."""
        known, recorded = self.planned_packs.get(pack, (0, ""))
        if known and plan_hash(plan, known) != recorded:
            start = self.layout.rows(pack).start
            raise StoreError(
                f"the plan of rows {start}..{start + known - 1} of design {self.layout.name!r} differs from the one in "
                f"{self.plan['masks'].path}: the configuration has changed since"
            )

    def read_plan(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows of one array of the plan. Raises StoreError when a chunk is missing or damaged."""
        missing = self.plan[name].missing(start, stop)
        if missing:
            raise StoreError(f"{missing} is missing: {REMEDY}")
        return self.plan[name].read(start, stop)

    def _load_planned(self) -> None:
        record, size = self.ledger.plan(), self.layout.pack
        self._durable_runs = record.runs
        counts = [min(size, record.runs - pack * size) for pack in range(len(record.packs))]
        self.planned_packs = dict(enumerate(zip(counts, record.packs, strict=True)))
        self._complete = sum(
            pack < self.layout.packs and count == len(self.layout.rows(pack))
            for pack, (count, _) in self.planned_packs.items()
        )
        self._unsynced: list[Path] = []

    def _make_plan_durable(self) -> None:
        folders = [array.path for array in self.plan.values()]
        with refusing("write", self.paths.runs):
            sync_all([*self._unsynced, *folders])
        self._unsynced = []
        hashes = tuple(self.planned_packs[pack][1] for pack in range(self.layout.packs))
        self.ledger.write_plan(PlanRecord(runs=self.layout.runs, packs=hashes))
        self._durable_runs = self.layout.runs

    def _whole_packs(self, start: int, count: int) -> range:
        size, stop = self.layout.pack, start + count
        if start % size or not count or (stop % size and stop != self.layout.runs) or stop > self.layout.runs:
            raise ValueError(
                f"rows {start}..{stop - 1} are no whole packs of {self.layout.name!r}, which has {self.layout.runs} rows "
                f"in packs of {size}"
            )
        return range(start, stop)

    # Outputs

    def outputs(self, measure: str, start: int, stop: int) -> NDArray[np.float32]:
        """Return one measure of rows start..stop, (r, t), NaN in every row that is not done."""
        array, done = self.measured[measure], self.ledger.states(start, stop) == DONE
        values = np.full((stop - start, array.array.shape[1]), np.nan, dtype=np.float32)
        for first, last in self._spans(done, start):
            values[first - start : last - start] = array.read(first, last)
        values[~done] = np.nan
        absent = np.flatnonzero(done & ~np.isfinite(values).all(axis=1))
        if len(absent):
            raise StoreError(
                f"{array.chunk((start + int(absent[0])) // self.layout.pack)} lacks rows that are done: {REMEDY}"
            )
        return values

    def _spans(self, done: NDArray[np.bool_], start: int) -> list[tuple[int, int]]:
        """Return the stretches of packs with done rows: other packs may be unwritten, or damaged and forgotten."""
        size = self.layout.pack
        packs = np.unique((np.flatnonzero(done) + start) // size)
        stretches = np.split(packs, np.flatnonzero(np.diff(packs) > 1) + 1) if len(packs) else []
        return [(max(start, int(s[0]) * size), min(start + len(done), (int(s[-1]) + 1) * size)) for s in stretches]

    def commit(self, pack: int, outcomes: Sequence[Outcome], worker: str, started: float, seconds: float) -> None:
        """Write the outcomes of some or all rows of a pack, beside the rows that are there."""
        if not outcomes:
            return
        rows, record = self.layout.rows(pack), self.ledger.record(pack)
        self._refuse(outcomes, rows, record)
        masks, seeds = (self.read_plan(name, rows.start, rows.stop) for name in ("masks", "seeds"))
        values = self._kept(rows, record, masks, seeds)
        trained = [outcome for outcome in outcomes if not outcome.failure]
        at = np.array([outcome.row - rows.start for outcome in trained], dtype=np.int64)
        for measure, array in values.items():
            for place, outcome in zip(at, trained, strict=True):
                array[place] = outcome.outputs[measure]
        kept = [self._write_checkpoints(outcome) for outcome in trained]
        hashes = row_hashes(masks[at], seeds[at], [array[at] for array in values.values()], kept)
        fresh = [  # of our own making, and thousands: not validated again
            RowRecord.model_construct(
                row=outcome.row, state="done", seconds=outcome.seconds, hash=digest, checkpoints=files
            )
            for outcome, digest, files in zip(trained, hashes, kept, strict=True)
        ]
        fresh += [
            RowRecord(row=outcome.row, state="failed", seconds=outcome.seconds, failure=outcome.failure)
            for outcome in outcomes
            if outcome.failure
        ]
        self._write_outputs(rows, values)
        delivered = {row.row: row for row in fresh}
        merged = {row.row: row for row in record.rows} | delivered
        commit = CommitRecord(worker=worker, started=started, seconds=seconds, rows=tuple(sorted(delivered)))
        self.ledger.write(
            PackRecord(
                design=self.layout.name,
                pack=pack,
                commits=(*record.commits, commit),
                rows=tuple(merged[row] for row in sorted(merged)),
            )
        )

    def _refuse(self, outcomes: Sequence[Outcome], rows: range, record: PackRecord) -> None:
        """Raise ValueError for outcomes that do not belong here: a fault of the caller, never of the user."""
        if not self.planned():
            raise ValueError(f"design {self.layout.name!r} has no complete plan yet")
        seen: set[int] = set()
        done = record.done()
        for outcome in outcomes:
            if outcome.row not in rows or outcome.row in seen:
                raise ValueError(
                    f"row {outcome.row} does not belong to rows {rows.start}..{rows.stop - 1}, or comes twice"
                )
            if outcome.row in done:
                raise ValueError(f"row {outcome.row} of {self.layout.name!r} is done: forget it first")
            seen.add(outcome.row)
        trained = [outcome for outcome in outcomes if not outcome.failure]
        for measure, array in self.measured.items():
            self._refuse_incomplete(trained, measure, array.array.shape[1:])

    def _refuse_incomplete(self, trained: Sequence[Outcome], measure: str, shape: tuple[int, ...]) -> None:
        """Raise ValueError for the first of the outcomes that lacks a finite output of this shape."""

        def is_good(values: NDArray[np.float32] | None) -> bool:
            return values is not None and values.shape == shape and bool(np.isfinite(values).all())

        found = [outcome.outputs.get(measure) for outcome in trained]
        fits = all(values is not None and values.shape == shape for values in found)
        if not fits or not np.isfinite(np.array(found, dtype=np.float32)).all():  # all at once: there are thousands
            row = next(outcome.row for outcome, values in zip(trained, found, strict=True) if not is_good(values))
            raise ValueError(f"row {row}: {measure} is not a finite array of shape {shape}")

    def _kept(
        self, rows: range, record: PackRecord, masks: NDArray[np.bool_], seeds: NDArray[np.uint32]
    ) -> dict[str, NDArray[np.float32]]:
        """Return the pack's outputs with its done rows in place, their hashes checked, and NaN elsewhere."""
        done = record.done()
        values: dict[str, NDArray[np.float32]] = {}
        for measure, array in self.measured.items():
            values[measure] = np.full((len(rows), *array.array.shape[1:]), np.nan, dtype=np.float32)
            if done:
                where = np.array(sorted(done)) - rows.start
                values[measure][where] = array.read(rows.start, rows.stop)[where]
        wrong = disagreeing(done, rows.start, masks, seeds, list(values.values()))
        if wrong:
            raise StoreError(f"row {wrong[0]} of design {self.layout.name!r} is not what was written: {REMEDY}")
        return values

    def _write_checkpoints(self, outcome: Outcome) -> dict[int, str]:
        return {
            checkpoint.epoch: write_checkpoint(
                self.paths.checkpoint(self.layout.name, outcome.row, checkpoint.epoch), checkpoint
            )
            for checkpoint in outcome.checkpoints
        }

    def _write_outputs(self, rows: range, values: Mapping[str, NDArray[np.float32]]) -> None:
        for measure, array in self.measured.items():
            for chunk in array.write(rows, values[measure]):
                with refusing("write", chunk):
                    sync(chunk)
                    sync(chunk.parent)

    def checkpoints(self, row: int) -> tuple[Checkpoint, ...]:
        """Return the checkpoints of a done row, by ascending epoch, their hashes checked."""
        entry = self.ledger.record(row // self.layout.pack).done().get(row)
        kept = sorted(entry.checkpoints.items()) if entry else []
        return tuple(read_checkpoint(self.paths.checkpoint(self.layout.name, row, epoch), h) for epoch, h in kept)

    # Repair

    def forget(self, rows: Iterable[int]) -> None:
        """Make rows pending; of a pack whose ledger record is damaged, all rows."""
        by_pack: dict[int, set[int]] = {}
        for row in rows:
            if not 0 <= row < self.layout.runs:
                raise ValueError(f"design {self.layout.name!r} has rows 0..{self.layout.runs - 1}, not {row}")
            by_pack.setdefault(row // self.layout.pack, set()).add(row)
        for pack, gone in by_pack.items():
            try:
                record = self.ledger.record(pack)
            except DamagedRecord:
                self.ledger.erase(pack)
                gone = set(self.layout.rows(pack))
            else:
                kept = tuple(row for row in record.rows if row.row not in gone)
                if len(kept) < len(record.rows):
                    self.ledger.write(record.model_copy(update={"rows": kept}))
            for row in gone:
                folder = self.paths.run_checkpoints(self.layout.name, row)
                with refusing("remove", folder):
                    if folder.exists():
                        shutil.rmtree(folder)

    # Growth

    def grow(self, layout: DesignLayout) -> None:
        """Make room for more rows; the manifest is written after this."""
        for array in (*self.plan.values(), *self.measured.values()):
            array.resize(layout.runs)
            with refusing("write", array.path):
                sync(array.path / "zarr.json")
                sync(array.path)

    def resized(self, layout: DesignLayout) -> None:
        """Take note of the new number of rows."""
        self.layout = layout
        self.ledger.resize(layout)
        self._load_planned()


def disagreeing(
    done: Mapping[int, RowRecord],
    first: int,
    masks: NDArray[np.bool_],
    seeds: NDArray[np.uint32],
    outputs: Sequence[NDArray[np.float32]],
) -> tuple[int, ...]:
    """Return the done rows whose hash is not the ledger's; the arrays are a pack's, whose first row is `first`."""
    rows = sorted(done)
    at = np.array(rows, dtype=np.int64) - first
    actual = row_hashes(
        masks[at], seeds[at], [values[at] for values in outputs], [done[row].checkpoints for row in rows]
    )
    return tuple(row for row, digest in zip(rows, actual, strict=True) if digest != done[row].hash)
