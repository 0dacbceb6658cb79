"""The runs of one design in the store: its plan, its outputs, and the order of writing that makes a crash harmless.

Order of a commit: checkpoints, chunks, then the ledger record, each on the disk before the next. A crash before the last step
leaves the rows pending.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.arrays import RunArray, planned_arrays, specs
from orchestrator.store.checked_rows import CheckedRows
from orchestrator.store.checkpoints import read_checkpoint, write_checkpoint
from orchestrator.store.durable import refusing, remove_folders, write_together
from orchestrator.store.hashes import row_hashes
from orchestrator.store.ledger import CommitRecord, DamagedRecord, Ledger, PackRecord, RowRecord
from orchestrator.store.manifest import DesignLayout, Manifest
from orchestrator.store.paths import SweepPaths
from orchestrator.store.planned_rows import PlannedRows
from workers.runs import Checkpoint, Outcome


class DesignRuns:
    """One design of an open store. Used through RunStore, which says what each method takes and returns."""

    measured: dict[str, RunArray]
    """The outputs, by measure, as they are written. Who reads them asks `rows`."""
    planned: PlannedRows
    """What is to be trained, as it is written."""
    rows: CheckedRows
    """The one way in which rows are read."""

    def __init__(self, paths: SweepPaths, manifest: Manifest, layout: DesignLayout, write: bool):
        self.layout = layout
        self.ledger = Ledger(paths, layout, exclusive=write)
        self.paths = paths
        folder = paths.runs / layout.name
        found = {name: RunArray.open(folder / name, spec, layout) for name, spec in specs(manifest, layout).items()}
        self.measured = {name: found[f"outputs/{name}"] for name in manifest.measures}
        self.planned = PlannedRows({name: found[name] for name in planned_arrays(layout)}, layout, self.ledger)
        self.rows = CheckedRows(self.planned, self.measured, self.ledger)

    def share(self) -> None:
        """Take note that others may write from now on: the lease is given back."""
        self.ledger.share()

    def commit(
        self,
        pack: int,
        outcomes: Sequence[Outcome],
        *,
        worker: str,
        started: float,
        seconds: float,
        provenance: str | None,
        clock: float | None,
    ) -> None:
        """Write the outcomes of some or all rows of a pack, beside the rows that are there."""
        if not outcomes:
            return
        rows, record = self.layout.rows(pack), self.ledger.record(pack)
        self._refuse(outcomes, rows, record)
        plan = {name: self.rows.plan(name, rows.start, rows.stop) for name in self.planned.arrays}
        values = {measure: self.rows.outputs(measure, rows.start, rows.stop) for measure in self.measured}
        trained = [outcome for outcome in outcomes if not outcome.failure]
        at = np.array([outcome.row - rows.start for outcome in trained], dtype=np.int64)
        for measure, array in values.items():
            for place, outcome in zip(at, trained, strict=True):
                array[place] = outcome.outputs[measure]
        kept = [self._write_checkpoints(outcome) for outcome in trained]
        planned = {name: array[at] for name, array in plan.items()}
        hashes = row_hashes(planned, [array[at] for array in values.values()], kept)
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
        commit = CommitRecord(
            worker=worker,
            started=started,
            seconds=seconds,
            rows=tuple(sorted(delivered)),
            provenance=provenance,
            clock=clock,
        )
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
        if not self.planned.is_complete():
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
            self._refuse_incomplete(trained, measure, array.row_shape)

    def _refuse_incomplete(self, trained: Sequence[Outcome], measure: str, shape: tuple[int, ...]) -> None:
        """Raise ValueError for the first of the outcomes that lacks a finite output of this shape."""

        def is_good(values: NDArray[np.float32] | None) -> bool:
            return values is not None and values.shape == shape and bool(np.isfinite(values).all())

        found = [outcome.outputs.get(measure) for outcome in trained]
        fits = all(values is not None and values.shape == shape for values in found)
        if not fits or not np.isfinite(np.array(found, dtype=np.float32)).all():  # all at once: there are thousands
            row = next(outcome.row for outcome, values in zip(trained, found, strict=True) if not is_good(values))
            raise ValueError(f"row {row}: {measure} is not a finite array of shape {shape}")

    def _write_checkpoints(self, outcome: Outcome) -> dict[int, str]:
        return {
            checkpoint.epoch: write_checkpoint(
                self.paths.checkpoint(self.layout.name, outcome.row, checkpoint.epoch), checkpoint
            )
            for checkpoint in outcome.checkpoints
        }

    def _write_outputs(self, rows: range, values: Mapping[str, NDArray[np.float32]]) -> None:
        files: dict[Path, bytes] = {}
        for measure, array in self.measured.items():
            files |= array.encode(rows.start, values[measure])
        write_together(files)

    def checkpoints(self, row: int) -> tuple[Checkpoint, ...]:
        """Return the checkpoints of a row, by ascending epoch, their hashes checked; none if it is not done."""
        entry = self.ledger.record(self.layout.pack_of(row)).done().get(row)
        kept = sorted(entry.checkpoints.items()) if entry else []
        return tuple(read_checkpoint(self.paths.checkpoint(self.layout.name, row, epoch), h) for epoch, h in kept)

    # Repair

    def forget(self, rows: Iterable[int]) -> None:
        """Make rows pending; of a pack whose ledger record is damaged, all rows."""
        by_pack: dict[int, set[int]] = {}
        for row in rows:
            by_pack.setdefault(self.layout.pack_of(row), set()).add(row)
        for pack, gone in by_pack.items():
            try:
                record = self.ledger.record(pack)
            except DamagedRecord:
                self.ledger.erase(pack)
                gone = set(self.layout.rows(pack))
            else:
                if self.ledger.is_lost(pack):
                    self.ledger.erase(pack)
                    gone = set(self.layout.rows(pack))
                kept = tuple(row for row in record.rows if row.row not in gone)
                if len(kept) < len(record.rows):
                    self.ledger.write(record.model_copy(update={"rows": kept}))
            for row in gone:
                folder = self.paths.run_checkpoints(self.layout.name, row)
                with refusing("remove", folder):
                    remove_folders(folder)

    # Growth

    def grow(self, layout: DesignLayout) -> None:
        """Make room for more rows; the manifest is written after this."""
        for array in (*self.planned.arrays.values(), *self.measured.values()):
            array.resize(layout.runs)

    def resized(self, layout: DesignLayout) -> None:
        """Take note of the new number of rows."""
        self.layout = layout
        self.ledger.resize(layout)
        self.planned.resize(layout)
