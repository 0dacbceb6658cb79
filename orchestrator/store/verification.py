"""Finding damage: everything of a pack read, and compared with what the ledger says was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.arrays import RunArray, Unreadable
from orchestrator.store.checkpoints import checkpoint_hash
from orchestrator.store.design_runs import DesignRuns, disagreeing
from orchestrator.store.hashes import plan_hash
from orchestrator.store.ledger import DamagedRecord, PackRecord

What = Literal["masks", "outputs", "checkpoint", "ledger"]


@dataclass(frozen=True)
class Damage:
    """Something in the store that is not what was written."""

    design: str
    pack: int
    rows: tuple[int, ...]
    """The rows it touches."""
    path: Path
    """The file at fault; where the outputs of several measures disagree with their common hash, the first of them."""
    what: What
    """"masks" is the plan (masks, seeds, subsets, repeats): `write_plan` it again from the configuration. Of anything
    else, `forget` the rows and train them again."""
    reason: str


def verify_pack(runs: DesignRuns, pack: int) -> list[Damage]:
    """Return all damage in one pack. Raises StoreError when the disk refuses to be read."""
    rows = tuple(runs.layout.rows(pack))
    found: list[Damage] = []
    record = PackRecord(design=runs.layout.name, pack=pack)
    try:
        record = runs.ledger.record(pack)
    except DamagedRecord as error:
        found.append(
            Damage(runs.layout.name, pack, rows, runs.paths.record(runs.layout.name, pack), "ledger", str(error))
        )
    planned, done = pack in runs.planned_packs, tuple(sorted(record.done()))
    plan, unreadable_plan = _examine(runs, pack, runs.plan, rows if planned or done else (), "masks")
    outputs, unreadable = _examine(runs, pack, runs.measured, done, "outputs")
    found += unreadable_plan + unreadable
    if planned and not unreadable_plan:
        found += _compare_plan(runs, pack, plan)
    if done and not found:
        found += _compare_rows(runs, pack, record, plan, list(outputs.values()))
    return found + _verify_checkpoints(runs, pack, record)


def _examine(
    runs: DesignRuns, pack: int, arrays: Mapping[str, RunArray], rows: tuple[int, ...], what: What
) -> tuple[dict[str, NDArray[Any]], list[Damage]]:
    """Read the chunks of a pack; return the readable ones, and the damage. Nothing is read when no rows depend on it."""
    values: dict[str, NDArray[Any]] = {}
    found: list[Damage] = []
    for name, array in arrays.items() if rows else ():
        content = array.examine(pack)
        if isinstance(content, Unreadable):
            found.append(Damage(runs.layout.name, pack, rows, array.chunk(pack), what, content.reason))
        else:
            values[name] = content
    return values, found


def _compare_plan(runs: DesignRuns, pack: int, plan: Mapping[str, NDArray[Any]]) -> list[Damage]:
    """Check that the plan of a pack is what the plan record says."""
    known, recorded = runs.planned_packs[pack]
    if plan_hash(plan, known) == recorded:
        return []
    rows, chunk = tuple(runs.layout.rows(pack)), runs.plan["masks"].chunk(pack)
    return [Damage(runs.layout.name, pack, rows, chunk, "masks", "readable, but not what was planned")]


def _compare_rows(
    runs: DesignRuns,
    pack: int,
    record: PackRecord,
    plan: Mapping[str, NDArray[Any]],
    outputs: Sequence[NDArray[np.float32]],
) -> list[Damage]:
    """Check each done row against its hash."""
    wrong = disagreeing(record.done(), runs.layout.rows(pack).start, plan["masks"], plan["seeds"], outputs)
    chunk = next(iter(runs.measured.values())).chunk(pack)
    reason = "readable, but not what the ledger's hash was taken of"
    return [Damage(runs.layout.name, pack, wrong, chunk, "outputs", reason)] if wrong else []


def _verify_checkpoints(runs: DesignRuns, pack: int, record: PackRecord) -> list[Damage]:
    """Check each checkpoint file of the done rows against its hash."""
    found = []
    for row, entry in record.done().items():
        for epoch, expected in entry.checkpoints.items():
            path = runs.paths.checkpoint(runs.layout.name, row, epoch)
            if (actual := checkpoint_hash(path)) != expected:
                reason = "missing" if actual is None else "not what was written"
                found.append(Damage(runs.layout.name, pack, (row,), path, "checkpoint", reason))
    return found
