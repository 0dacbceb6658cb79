"""Rows on their way out of the store: nobody sees one that is not what was written.

A pack is held against what was recorded of it when one of its rows is first asked for: its plan against the plan record, its
done rows against the ledger. What its files held then is remembered, by their hashes, while the store is open. Reading them again
costs that hash; a file that has changed since, or a record that was replaced, is checked anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.arrays import Chunk, RunArray
from orchestrator.store.damage import Damage, What
from orchestrator.store.hashes import plan_hash, row_hashes
from orchestrator.store.ledger import DONE, Ledger, PackSummary
from orchestrator.store.manifest import DesignLayout, refuse_oversized
from orchestrator.store.planned_rows import PlannedRows
from workers.errors import StoreError


@dataclass(frozen=True)
class _Sound:
    """What a pack's files held when they were found to be what was written."""

    record: object
    """What they were held against."""
    hashes: Mapping[str, str]
    """Hash of each array's file."""


@dataclass(frozen=True)
class Examined:
    """A pack's chunks of some arrays, and what is wrong with them."""

    chunks: Mapping[str, Chunk]
    """Those that can be read."""
    damages: tuple[Damage, ...]


class CheckedRows:
    """The rows of one design in an open store, each checked before it is handed out."""

    def __init__(self, planned: PlannedRows, measured: Mapping[str, RunArray], ledger: Ledger):
        self._planned, self._measured, self._ledger = planned, measured, ledger
        self._sound_plans: dict[int, _Sound] = {}
        self._sound_outputs: dict[int, _Sound] = {}

    def plan(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows start..stop of one array of the plan. Raises StoreError where they are not what was planned."""
        array = self._planned.arrays[name]
        rows = self._room(name, array, stop - start)
        for pack, within, at in self._packs(start, stop):
            self._refuse_unplanned(pack, within.stop)
            rows[at] = self._sound_plan(name, pack)[within]
        return rows

    def outputs(self, measure: str, start: int, stop: int) -> NDArray[np.float32]:
        """Return one measure of rows start..stop, NaN where they are not done.

        Raises StoreError where a done row is not what was written.
        """
        array = self._measured[measure]
        rows = self._room(measure, array, stop - start)
        rows[...] = np.nan
        with self._ledger.snapshot():
            self.refuse_lost(start, stop)
            done = self._ledger.states(start, stop) == DONE
            for pack, within, at in self._packs(start, stop):
                if done[at].any():
                    rows[at] = self._sound_output(measure, pack)[within]
        rows[~done] = np.nan
        return rows

    def refuse_lost(self, start: int, stop: int) -> None:
        """Raise StoreError where some of the rows were finished, and their ledger record is lost: they look pending."""
        size = self._layout.pack
        lost = [damage for damage in self.lost() if start < (damage.pack + 1) * size and damage.pack * size < stop]
        if lost:
            raise StoreError(str(lost[0]))

    def lost(self) -> list[Damage]:
        """Return the packs that were committed and have no record."""
        return [self.lost_record(pack) for pack in self._ledger.lost()]

    def lost_record(self, pack: int) -> Damage:
        """Return the damage that a lost record is."""
        rows, path = tuple(self._layout.rows(pack)), self._ledger.path(pack)
        return Damage(self._layout.name, pack, rows, path, "ledger", "missing, though its pack was committed")

    def examine_plan(self, pack: int) -> Examined:
        """Read the plan of a pack, and hold it against the plan record."""
        found = self._read(pack, self._planned.arrays, "masks", tuple(self._layout.rows(pack)))
        recorded = self._planned.packs.get(pack)
        if found.damages or recorded is None:  # of a lost record, the hashes of the done rows stand in for it
            return found
        count, expected = recorded
        if plan_hash({name: chunk.values for name, chunk in found.chunks.items()}, count) != expected:
            rows = tuple(self._layout.rows(pack))
            return self._damaged(found, pack, rows, "masks", "readable, but not what was planned")
        self._sound_plans[pack] = _Sound(recorded, {name: chunk.hash for name, chunk in found.chunks.items()})
        return found

    def examine_outputs(self, pack: int, summary: PackSummary, plan: Mapping[str, Chunk] | None) -> Examined:
        """Read the outputs of a pack, and hold its done rows against the ledger's `summary`; not without their plan."""
        found = self._read(pack, self._measured, "outputs", summary.done())
        if found.damages or plan is None:
            return found
        wrong = _disagreeing(
            summary, self._layout.rows(pack).start, plan, [found.chunks[name] for name in self._measured]
        )
        if wrong:
            measures = " or ".join(self._measured)
            reason = f"readable, but row {wrong[0]} of {measures} is not what the ledger's hash was taken of"
            return self._damaged(found, pack, wrong, "outputs", reason)
        self._sound_outputs[pack] = _Sound(
            _promised(summary), {name: chunk.hash for name, chunk in found.chunks.items()}
        )
        return found

    @property
    def _layout(self) -> DesignLayout:
        return self._planned.layout

    def _room(self, name: str, array: RunArray, rows: int) -> NDArray[Any]:
        """Return an array for so many rows of a stored one. Raises StoreError where this machine has no room for it."""
        shape = (rows, *array.row_shape)
        what = f"{name} of {rows:,} rows of design {self._layout.name!r}"
        refuse_oversized(what, math.prod(shape) * array.dtype.itemsize)
        return np.empty(shape, dtype=array.dtype)

    def _packs(self, start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
        """Yield the packs of rows start..stop: which of the pack's rows are meant, and where in the stretch they come."""
        size = self._layout.pack
        for pack in range(start // size, -(-stop // size)):
            first, last = max(start, pack * size), min(stop, (pack + 1) * size)
            yield pack, slice(first - pack * size, last - pack * size), slice(first - start, last - start)

    def _refuse_unplanned(self, pack: int, rows: int) -> None:
        """Raise StoreError unless the first rows of a pack are known to be planned, and with what content."""
        if self._planned.packs.get(pack, (0, ""))[0] < rows:
            self._planned.refresh()
        if self._planned.packs.get(pack, (0, ""))[0] < rows:
            raise StoreError(
                f"{self._ledger.plan_path} does not say that all rows of design {self._layout.name!r} are planned: "
                "`counterfactory run` with the sweep's configuration plans them"
            )

    def _sound_plan(self, name: str, pack: int) -> NDArray[Any]:
        known = self._sound_plans.get(pack)
        if known is not None and known.record == self._planned.packs[pack]:
            chunk = self._planned.arrays[name].read(pack)
            if isinstance(chunk, Chunk) and chunk.hash == known.hashes[name]:
                return chunk.values
        examined = self.examine_plan(pack)
        _refuse(examined)
        return examined.chunks[name].values

    def _sound_output(self, measure: str, pack: int) -> NDArray[Any]:
        summary, known = self._ledger.summary(pack), self._sound_outputs.get(pack)
        if known is not None and known.record == _promised(summary):
            chunk = self._measured[measure].read(pack)
            if isinstance(chunk, Chunk) and chunk.hash == known.hashes[measure]:
                return chunk.values
        plan = self.examine_plan(pack)
        _refuse(plan)
        examined = self.examine_outputs(pack, summary, plan.chunks)
        _refuse(examined)
        return examined.chunks[measure].values

    def _read(self, pack: int, arrays: Mapping[str, RunArray], what: What, rows: tuple[int, ...]) -> Examined:
        chunks: dict[str, Chunk] = {}
        damages = []
        for name, array in arrays.items():
            content = array.read(pack)
            if isinstance(content, Chunk):
                chunks[name] = content
            else:
                damages.append(Damage(self._layout.name, pack, rows, array.chunk(pack), what, content.reason))
        return Examined(chunks, tuple(damages))

    def _damaged(self, found: Examined, pack: int, rows: tuple[int, ...], what: What, reason: str) -> Examined:
        """Return chunks that can be read, and yet are not what was written; the first of them is named."""
        arrays = self._planned.arrays if what == "masks" else self._measured
        path = next(iter(arrays.values())).chunk(pack)
        return Examined(found.chunks, (Damage(self._layout.name, pack, rows, path, what, reason),))


def _promised(summary: PackSummary) -> tuple[object, ...]:
    """Return what the ledger says of a pack's content."""
    return summary.rows, summary.hashes, summary.checkpoints


def _refuse(examined: Examined) -> None:
    if examined.damages:
        raise StoreError(str(examined.damages[0]))


def _disagreeing(summary: PackSummary, first: int, plan: Mapping[str, Chunk], outputs: list[Chunk]) -> tuple[int, ...]:
    """Return the done rows whose hash is not the ledger's; the chunks are a pack's, whose first row is `first`."""
    rows = summary.done()
    at = np.array(rows, dtype=np.int64) - first
    expected = dict(zip(summary.rows, summary.hashes, strict=True))
    actual = row_hashes(
        {name: chunk.values[at] for name, chunk in plan.items()},
        [chunk.values[at] for chunk in outputs],
        [summary.checkpoints.get(row, {}) for row in rows],
    )
    return tuple(row for row, digest in zip(rows, actual, strict=True) if digest != expected[row])
