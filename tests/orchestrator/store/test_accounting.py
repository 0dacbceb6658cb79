import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.store import accounting, work_clock
from orchestrator.store.ledger import PackRecord
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from workers.runs import Failure, Outcome

Commit = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    """Two designs of six rows in packs of two; nothing trained."""
    layouts = [DesignLayout("fit", "subsets", "fit", 6, 2), DesignLayout("held", "subsets", "score", 6, 2)]
    with RunStore.create(SweepPaths(tmp_path), config_hash="x", n=3, t=1, measures=("m",), designs=layouts) as made:
        for name in made.designs:
            for start in (0, 2, 4):
                rows = np.arange(start, start + 2)
                made.write_plan(name, start, np.ones((2, 3), bool), rows.astype(np.uint32), rows, rows.astype(np.int32))
        yield made


def commit(
    store: RunStore,
    design: str,
    pack: int,
    *,
    started: float,
    seconds: float = 4.0,
    failure: Failure | None = None,
    value: float = 0,
) -> None:
    outcomes = [
        Outcome(row, {} if failure else {"m": np.array([value], np.float32)}, failure=failure, seconds=seconds / 2)
        for row in (2 * pack, 2 * pack + 1)
    ]
    store.commit(design, pack, outcomes, worker="w", started=started, seconds=seconds)


def test_the_cost_of_runs_is_their_own_time(store: RunStore) -> None:
    commit(store, "fit", 0, started=100, seconds=4)
    commit(store, "fit", 2, started=102, seconds=6)
    commit(store, "held", 0, started=103, seconds=1)
    assert accounting.train_seconds(store, ["fit"]) == 10
    assert accounting.train_seconds(store, store.designs) == 11
    assert accounting.train_seconds(store, []) == 0


class Clocks:
    """Both clocks of the machine: the one on the wall may be set, the other one only runs."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1e9, 50.0

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()
    monkeypatch.setattr(time, "time", lambda: made.wall)
    monkeypatch.setattr(work_clock, "monotonic", lambda: made.monotonic)
    return made


def test_a_design_takes_from_its_first_start_to_its_last_end(clocks: Clocks, store: RunStore) -> None:
    assert accounting.wall_seconds(store, "fit") == 0
    store.begin_work()
    clocks.run(4)
    commit(store, "fit", 0, started=clocks.wall - 4, seconds=4)
    commit(store, "held", 0, started=clocks.wall - 1, seconds=1)
    clocks.run(5)
    commit(store, "fit", 1, started=clocks.wall - 6, seconds=6)
    assert accounting.wall_seconds(store, "fit") == pytest.approx(9)
    assert accounting.working_seconds(store) == pytest.approx(9)


@pytest.mark.parametrize("jump", [-86400.0, 0.0, 86400.0])
def test_a_clock_that_jumps_changes_no_duration_and_pauses_are_left_out(
    clocks: Clocks, store: RunStore, jump: float
) -> None:
    clocks.run(1000)
    store.begin_work()
    clocks.run(10)
    commit(store, "fit", 0, started=clocks.wall - 4, seconds=4)
    clocks.wall += jump
    clocks.run(10)
    commit(store, "fit", 1, started=clocks.wall - 4, seconds=4)
    store.close()
    assert store.worked_seconds() == pytest.approx(20)
    clocks.run(1e6)
    clocks.monotonic = 3.0  # the machine was started again
    with RunStore.open(store.paths, write=True) as again:
        clocks.run(1000)
        assert again.worked_seconds() == pytest.approx(20)
        again.begin_work()
        clocks.run(5)
        clocks.wall -= jump
        commit(again, "fit", 2, started=clocks.wall - 5, seconds=5)
        assert again.worked_seconds() == pytest.approx(25)
    with RunStore.open(store.paths) as reader:
        clocks.run(1e6)
        assert reader.worked_seconds() == pytest.approx(25)
        assert accounting.wall_seconds(reader, "fit") == pytest.approx(19)
        assert accounting.working_seconds(reader) == pytest.approx(13)


def test_a_worker_that_died_alone_has_no_start_to_count(store: RunStore) -> None:
    commit(store, "fit", 0, started=0.0, seconds=0.0, failure=Failure("WorkerDied", "its worker died", "..."))
    assert accounting.wall_seconds(store, "fit") == 0
    assert accounting.recent_rate(store) is None


def test_the_rate_is_that_of_the_last_minutes(store: RunStore) -> None:
    now = time.time()
    assert accounting.recent_rate(store) is None
    commit(store, "fit", 0, started=now - 5000, seconds=10)
    assert accounting.recent_rate(store) is None
    commit(store, "fit", 1, started=now - 20, seconds=15)
    commit(store, "held", 0, started=now - 10, seconds=9)
    rate = accounting.recent_rate(store)
    assert rate is not None
    assert rate == pytest.approx(4 / 20, rel=0.2)


def test_the_digest_changes_with_runs_and_with_nothing_else(store: RunStore) -> None:
    empty = accounting.rows_hash(store, "fit")
    commit(store, "fit", 0, started=1, value=1.0)
    one = accounting.rows_hash(store, "fit")
    commit(store, "held", 0, started=1)
    assert accounting.rows_hash(store, "fit") == one != empty
    store.forget("fit", [0, 1])
    assert accounting.rows_hash(store, "fit") == empty
    commit(store, "fit", 0, started=999, value=1.0)
    assert accounting.rows_hash(store, "fit") == one, "when it was trained does not matter"
    store.forget("fit", [0, 1])
    commit(store, "fit", 0, started=1, value=2.0)
    assert accounting.rows_hash(store, "fit") not in {one, empty}


def test_failures_are_told_once_with_their_number(store: RunStore) -> None:
    commit(store, "fit", 0, started=1, failure=Failure("KeyError", "x", "..."))
    commit(store, "fit", 1, started=1, failure=Failure("KeyError", "x", "..."))
    commit(store, "held", 1, started=1, failure=Failure("KeyError", "x", "..."))
    assert accounting.failure_lines(store) == ["fit: KeyError: x (4 times)", "held: KeyError: x (2 times)"]


def test_the_digest_is_that_of_rows_and_their_hashes(store: RunStore) -> None:
    commit(store, "fit", 2, started=1, value=1.0)
    commit(store, "fit", 0, started=1, failure=Failure("KeyError", "x", "..."))
    hashes = {row.row: row.hash for row in store.record("fit", 2).rows}
    text = f"0:None;1:None;4:{hashes[4]};5:{hashes[5]};"
    assert accounting.rows_hash(store, "fit") == hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def test_a_row_was_made_under_what_it_was_delivered_under_last(store: RunStore) -> None:
    commit(store, "fit", 1, started=1)
    store.provenance = "first"
    commit(store, "fit", 0, started=1)
    store.forget("fit", [1])
    store.provenance = "second"
    outcome = Outcome(1, {"m": np.zeros(1, np.float32)})
    store.commit("fit", 0, [outcome], worker="w", started=1, seconds=1)
    commit(store, "fit", 2, started=1, failure=Failure("KeyError", "x", "..."))
    assert accounting.made_under(store, "fit") == {0: "first", 1: "second", 2: None, 3: None}
    assert accounting.made_under(store, "held") == {}


def test_rows_come_in_the_order_of_their_last_delivery(clocks: Clocks, store: RunStore) -> None:
    commit(store, "fit", 2, started=500.0)  # nobody recorded the clock: by the time on the wall, before all others
    commit(store, "fit", 1, started=400.0)
    assert accounting.as_they_came(store, "fit").tolist() == [2, 3, 4, 5]
    store.begin_work()
    clocks.run(5)
    commit(store, "fit", 0, started=100.0)
    assert accounting.as_they_came(store, "fit").tolist() == [2, 3, 4, 5, 0, 1]
    store.forget("fit", [2])
    assert accounting.as_they_came(store, "fit").tolist() == [3, 4, 5, 0, 1]
    clocks.run(5)
    store.commit("fit", 1, [Outcome(2, {"m": np.zeros(1, np.float32)})], worker="w", started=1, seconds=1)
    found = accounting.as_they_came(store, "fit")
    assert (found.tolist(), found.dtype) == ([3, 4, 5, 0, 1, 2], np.int64)
    assert accounting.as_they_came(store, "held").tolist() == []


def test_the_rate_counts_two_minutes_exactly(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(store, "fit", 0, started=876.0, seconds=4)
    commit(store, "fit", 1, started=900.0, seconds=10)
    for now, rate in ((920.0, 4 / 44), (999.9, 4 / 123.9), (1000.0, 2 / 100), (1029.0, 2 / 129), (1030.0, None)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        found = accounting.recent_rate(store)
        assert found == (None if rate is None else pytest.approx(rate))


def test_packs_side_by_side_are_worked_on_once(clocks: Clocks, store: RunStore) -> None:
    store.begin_work()
    clocks.run(10)
    commit(store, "fit", 0, started=1.0, seconds=6)  # from 4 to 10
    clocks.run(2)
    commit(store, "held", 0, started=1.0, seconds=3)  # from 9 to 12
    clocks.run(8)
    commit(store, "fit", 1, started=1.0, seconds=5)  # from 15 to 20
    clocks.run(1)
    commit(store, "held", 1, started=1.0, seconds=500)  # as far as anybody knows, from the start to 21
    assert accounting.wall_seconds(store, "fit") == pytest.approx(16)
    assert accounting.working_seconds(store) == pytest.approx(21)
    store.forget("held", [2, 3])
    assert accounting.wall_seconds(store, "held") == pytest.approx(21)


def test_nothing_is_read_again_for_every_estimator(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for pack in range(3):
        commit(store, "fit", pack, started=100.0 + pack)
    looks, parses = [], []
    scandir, validate = os.scandir, PackRecord.model_validate_json
    monkeypatch.setattr("orchestrator.store.ledger.os.scandir", lambda path: looks.append(path) or scandir(path))  # type: ignore[func-returns-value]
    monkeypatch.setattr(PackRecord, "model_validate_json", lambda content: parses.append(1) or validate(content))  # type: ignore[func-returns-value]
    with RunStore.open(store.paths) as reader:
        for asked in (store, reader):
            with asked.snapshot():
                for _ in range(8):
                    accounting.train_seconds(asked, asked.designs)
                    accounting.rows_hash(asked, "fit")
                    accounting.working_seconds(asked)
                    accounting.failure_lines(asked)
    assert looks.count(store.paths.design_ledger("fit")) == 1, "by the reader; the writer knows"
    assert len(parses) == 3, "by the reader, once a record"
