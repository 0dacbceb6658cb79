"""What a store must say of its packs: summaries and records that agree with what was delivered, hash by hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.store.ledger import DONE, FAILED, PENDING, PackRecord, PackSummary
from orchestrator.store.run_store import RunStore


@dataclass(frozen=True)
class Delivered:
    """What a design was given: its finished rows, whatever their order."""

    hashes: Mapping[int, str]
    """Of each done row, the hash that the ledger must have."""
    failed: Sequence[int]
    """The rows that failed."""
    files: Mapping[int, Mapping[int, str]]
    """Of each done row that has checkpoints, their hashes by epoch."""
    seconds: float
    """What each row took."""


def expect_records(store: RunStore, delivered: Delivered) -> None:
    """Raise AssertionError unless summaries and records of `fit` say what was delivered, and no more."""
    done = sorted(delivered.hashes)
    finished = store.finished("fit").tolist()
    assert finished == done, f"the finished rows are {finished}, expected {done}"
    assert store.has_begun == bool(done), f"`has_begun` is {store.has_begun}, and {len(done)} rows are done"
    layout, summaries = store.designs["fit"], {one.pack: one for one in store.summaries("fit")}
    beyond = set(summaries) - set(range(layout.packs))
    assert not beyond, f"there is a summary of pack {min(beyond, default=0)}, the design has {layout.packs} packs"
    for pack in range(layout.packs):
        if pack in summaries:
            _expect_summary(summaries[pack], delivered)
            _expect_record(store.record("fit", pack), summaries[pack], layout.rows(pack))
        else:
            unsaid = {*done, *delivered.failed} & set(layout.rows(pack))
            assert not unsaid, f"row {min(unsaid, default=0)} is done or failed, and its pack has no summary"


def _expect_summary(summary: PackSummary, delivered: Delivered) -> None:
    size = len(summary.states)
    every = range(summary.pack * size, (summary.pack + 1) * size)
    rows = [row for row in every if row in delivered.hashes or row in delivered.failed]
    expected = {
        "rows": (summary.rows, tuple(rows)),
        "states": (
            summary.states.tolist(),
            [DONE if row in delivered.hashes else FAILED if row in delivered.failed else PENDING for row in every],
        ),
        "done rows": (summary.done(), tuple(row for row in rows if row in delivered.hashes)),
        "seconds": (summary.seconds, (delivered.seconds,) * len(rows)),
        "hashes": (summary.hashes, tuple(delivered.hashes.get(row) for row in rows)),
        "failures": ([one.row for one in summary.failures], [row for row in rows if row in delivered.failed]),
        "checkpoints": (
            {row: dict(files) for row, files in summary.checkpoints.items()},
            {row: dict(delivered.files[row]) for row in rows if row in delivered.files},
        ),
    }
    for what, (found, wanted) in expected.items():
        assert found == wanted, f"the summary of pack {summary.pack} has the {what} {found}, expected {wanted}"


def _expect_record(record: PackRecord, summary: PackSummary, known: range) -> None:
    """Raise AssertionError unless a pack's record and its summary say the same of the rows that the store knows of."""
    rows = [(one.row, one.seconds, one.hash) for one in record.rows if one.row in known]
    said = list(zip(summary.rows, summary.seconds, summary.hashes, strict=True))
    assert rows == said, f"the record of pack {summary.pack} has the rows {rows}, its summary {said}"
    assert summary.commits == record.commits, (
        f"the record of pack {summary.pack} has {len(record.commits)} commits, its summary {len(summary.commits)}"
    )
    unsaid = {row for row, _, _ in rows} - {row for commit in record.commits for row in commit.rows}
    assert not unsaid, f"row {min(unsaid, default=0)} is in no commit of pack {summary.pack}"
