"""What is planned for one design: its masks, seeds, subsets, repeats and weights, and the record that says they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.arrays import RunArray
from orchestrator.store.durable import write_together
from orchestrator.store.hashes import plan_hash
from orchestrator.store.ledger import Ledger, PlanRecord
from orchestrator.store.manifest import DesignLayout
from workers.errors import StoreError


class PlannedRows:
    """The plan of a design in an open store, as it is written. Who reads it asks CheckedRows."""

    arrays: Mapping[str, RunArray]
    """masks, seeds, subsets, repeats; weights where the design has them."""
    packs: dict[int, tuple[int, str]]
    """Of each pack whose plan was written: how many rows it had, and their hash."""

    def __init__(self, arrays: Mapping[str, RunArray], layout: DesignLayout, ledger: Ledger):
        self.arrays, self.layout = arrays, layout
        self._ledger = ledger
        self.load()

    def load(self) -> None:
        """Read the record of what is planned."""
        record, size = self._ledger.plan(), self.layout.pack
        self._durable_runs = record.runs
        counts = [min(size, record.runs - pack * size) for pack in range(len(record.packs))]
        self.packs = dict(enumerate(zip(counts, record.packs, strict=True)))
        self._complete = sum(
            pack < self.layout.packs and count == len(self.layout.rows(pack)) for pack, (count, _) in self.packs.items()
        )

    def resize(self, layout: DesignLayout) -> None:
        """Take note of the design's new number of rows."""
        self.layout = layout
        self.load()

    def refresh(self) -> None:
        """Read the record again, unless nobody else writes it."""
        if not self._ledger.exclusive:
            self.load()

    def is_complete(self) -> bool:
        """Return whether the plan of every row is written and durable."""
        self.refresh()
        return self._durable_runs >= self.layout.runs  # more, where the design grew since a reader opened it

    def write(self, start: int, plan: Mapping[str, NDArray[Any]]) -> None:
        """Write the plan of one or more packs; it counts when the last pack's is written."""
        if plan.keys() != self.arrays.keys():
            raise ValueError(
                f"a plan of {', '.join(plan)} for {self.layout.name!r}, which has {', '.join(self.arrays)}"
            )
        rows = self._whole_packs(start, len(plan["masks"]))
        for name, values in plan.items():
            array = self.arrays[name]
            if values.shape != (len(rows), *array.row_shape):
                raise ValueError(f"{name} has shape {values.shape}, expected {(len(rows), *array.row_shape)}")
            if not np.array_equal(values, values.astype(array.dtype)):
                raise ValueError(f"{name} holds values that are not of type {array.dtype}")
        first, last = start // self.layout.pack, (rows.stop - 1) // self.layout.pack
        packs = {pack: self._rows_in(plan, pack, start) for pack in range(first, last + 1)}
        for pack, part in packs.items():
            self._refuse_other(pack, part)
        write_together(
            {
                file: content
                for name in self.arrays
                for file, content in self.arrays[name].encode(start, plan[name]).items()
            }
        )
        for pack, part in packs.items():
            count = len(part["masks"])
            self._complete += self.packs.get(pack, (0, ""))[0] != count
            self.packs[pack] = (count, plan_hash(part, count))
        if self._complete == self.layout.packs:
            hashes = tuple(self.packs[pack][1] for pack in range(self.layout.packs))
            self._ledger.write_plan(PlanRecord(runs=self.layout.runs, packs=hashes))
            self._durable_runs = self.layout.runs

    def _rows_in(self, plan: Mapping[str, NDArray[Any]], pack: int, start: int) -> dict[str, NDArray[Any]]:
        """Return the rows of one pack, of a plan whose first row is `start`."""
        rows = self.layout.rows(pack)
        return {name: values[rows.start - start : rows.stop - start] for name, values in plan.items()}

    def _refuse_other(self, pack: int, plan: Mapping[str, NDArray[Any]]) -> None:
        """Raise StoreError when rows of a pack that were planned before would change."""
        known, recorded = self.packs.get(pack, (0, ""))
        if known and plan_hash(plan, known) != recorded:
            start = self.layout.rows(pack).start
            raise StoreError(
                f"the plan of rows {start}..{start + known - 1} of design {self.layout.name!r} differs from the one in "
                f"{self.arrays['masks'].path}: the configuration has changed since"
            )

    def _whole_packs(self, start: int, count: int) -> range:
        size, stop = self.layout.pack, start + count
        if start % size or not count or (stop % size and stop != self.layout.runs) or stop > self.layout.runs:
            raise ValueError(
                f"rows {start}..{stop - 1} are no whole packs of {self.layout.name!r}, which has {self.layout.runs} rows "
                f"in packs of {size}"
            )
        return range(start, stop)
