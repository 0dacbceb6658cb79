"""What a ledger of many packs costs: deciding which of them are left to train, and the sums that every estimator asks for.

    python benchmarks/store.py [--packs 6250] [--rows 16] [--estimators 8] [--sample 200]

Makes a store whose every second pack is recorded, and asks it in two ways in one process: as the one that holds the lease,
whose summary of the ledger is always current; and as somebody who looks at the folder for every question and reads every
record for every sum. Both must answer alike. Prints how many times longer the second way takes. Of the packs it decides on
`--sample`, and its time is scaled to all of them.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from orchestrator.store import accounting
from orchestrator.store.ledger import PENDING, CommitRecord, PackRecord, RowRecord
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore

DESIGN = "fit"
Answer = TypeVar("Answer")


def synthetic(paths: SweepPaths, packs: int, rows: int) -> None:
    """Make a store whose even packs are recorded as done. The records are written without waiting for the disk."""
    layout = DesignLayout(DESIGN, "subsets", "fit", packs * rows, rows)
    RunStore.create(paths, config_hash="", n=8, t=1, measures=("margin",), designs=[layout]).close()
    paths.design_ledger(DESIGN).mkdir(parents=True)
    for pack in range(0, packs, 2):
        there = tuple(layout.rows(pack))
        record = PackRecord(
            design=DESIGN,
            pack=pack,
            commits=(CommitRecord(worker="w", started=1e9 + pack, seconds=1.0, rows=there),),
            rows=tuple(RowRecord(row=row, state="done", seconds=0.1, hash=f"{row:032x}") for row in there),
        )
        paths.record(DESIGN, pack).write_text(record.model_dump_json(exclude_none=True))


def decide(store: RunStore, packs: range) -> list[int]:
    """Return which of the packs have rows still to do, asked one by one as a retraining does."""
    spans = ((pack, store.designs[DESIGN].rows(pack)) for pack in packs)
    return [pack for pack, rows in spans if (store.states(DESIGN, rows.start, rows.stop) == PENDING).any()]


def account(store: RunStore, estimators: int) -> list[tuple[float, str]]:
    """Return what every estimator asks for: what its runs cost, and whether they are still the same."""
    return [(accounting.train_seconds(store, [DESIGN]), accounting.rows_hash(store, DESIGN)) for _ in range(estimators)]


def account_record_by_record(store: RunStore, estimators: int) -> list[tuple[float, str]]:
    """Return the same, from every record read and parsed for every sum."""

    def records() -> list[PackRecord]:
        return [store.record(DESIGN, pack) for pack in range(store.designs[DESIGN].packs)]

    answers = []
    for _ in range(estimators):
        seconds = sum(row.seconds for record in records() for row in record.rows)
        made = hashlib.blake2b(digest_size=16)
        for record in records():
            for row in record.rows:
                made.update(f"{row.row}:{row.hash};".encode())
        answers.append((seconds, made.hexdigest()))
    return answers


def timed(work: Callable[[], Answer]) -> tuple[float, Answer]:
    started = time.perf_counter()
    answer = work()
    return time.perf_counter() - started, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=int, default=6250)
    parser.add_argument("--rows", type=int, default=16, help="rows a pack")
    parser.add_argument("--sample", type=int, default=200, help="packs that are decided on with another look each time")
    parser.add_argument("--estimators", type=int, default=8)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = SweepPaths(Path(folder, "sweep"))
        synthetic(paths, asked.packs, asked.rows)
        with RunStore.open(paths, write=True) as writer, RunStore.open(paths) as reader:
            opened, _ = timed(lambda: writer.states(DESIGN))
            reader.states(DESIGN)
            print(f"{asked.packs} packs of {asked.rows} rows, half of them recorded; first look {opened:.2f} s")
            sample, packs = range(min(asked.sample, asked.packs)), range(asked.packs)
            quick, answer = timed(lambda: decide(writer, packs))
            slow, expected = timed(lambda: decide(reader, sample))
            assert answer[: len(expected)] == expected
            tell("decide on every pack", quick, slow * len(packs) / len(sample))
            quick, sums = timed(lambda: account(writer, asked.estimators))
            slow, expected_sums = timed(lambda: account_record_by_record(reader, asked.estimators))
            assert sums == expected_sums
            tell(f"sums for {asked.estimators} estimators", quick, slow)


def tell(what: str, quick: float, slow: float) -> None:
    print(f"{what}: {quick:.3f} s; with another look each time {slow:.2f} s; ratio {slow / quick:.0f}")


if __name__ == "__main__":
    main()
