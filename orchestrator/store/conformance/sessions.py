"""What a store promises to those who have it open at the same time, and from one session to the next."""

from __future__ import annotations

import time
from typing import Any

from orchestrator.store.conformance.storage import contents_of
from orchestrator.store.conformance.trial import HELD_OUT, Make, planned
from orchestrator.store.run_store import RunStore

PAUSE = 0.1
"""Seconds of work in a first session; far more than there are between two questions."""


def check_readers(make: Make) -> None:
    """A reader sees each change of the writer's when it asks next, and leaves nothing behind."""
    with planned(make) as trial:
        writer = trial.store
        trial.storage.write("ledger/fit/.half.partial", b"half")
        before = contents_of(trial.storage)
        with trial.storage.open() as reader:
            trial.expect([], store=reader)
            after = contents_of(trial.storage)
            changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
            assert not changed, f"opening a store for reading has changed {min(changed, default='')}"
            trial.commit(range(6))
            trial.expect(range(6), store=reader)
            trial.commit([7], fail=True)
            trial.expect(range(6), failed=[7], store=reader)
            writer.forget("fit", [2, 7])
            trial.expect([0, 1, 3, 4, 5], store=reader)


def check_snapshots(make: Make) -> None:
    """Within a snapshot a reader answers as of one moment, of all designs; after it, as of now."""
    with planned(make) as trial:
        trial.commit(range(4))
        with trial.storage.open() as reader:
            with reader.snapshot():
                before = _answers(reader)
                trial.commit(range(4, 8))
                trial.commit([8], fail=True)
                trial.commit_held_out()
                with reader.snapshot():
                    within = _answers(reader)
                assert within == before, f"within a snapshot the answers change: {_difference(before, within)}"
                within = _answers(reader)
                assert within == before, f"a snapshot ends with one inside it: {_difference(before, within)}"
            trial.expect(range(8), failed=[8], store=reader)
            found = reader.finished(HELD_OUT.name).tolist()
            expected = list(range(HELD_OUT.runs))
            assert found == expected, f"after a snapshot a reader sees the finished rows {found}, expected {expected}"


def _answers(store: RunStore) -> dict[str, Any]:
    """Return what a store says of its designs, as plain values."""
    found: dict[str, Any] = {}
    for name in store.designs:
        found[f"the states of {name}"] = store.states(name).tolist()
        found[f"the finished rows of {name}"] = store.finished(name).tolist()
        found[f"the failures of {name}"] = [one.row for one in store.failures(name)]
        found[f"the summaries of {name}"] = [(one.pack, one.rows, one.hashes) for one in store.summaries(name)]
    found["the rows that have outputs"] = [row[0] == row[0] for row in store.outputs("fit", "loss").tolist()]
    return found


def _difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    what = next(name for name in before if before[name] != after[name])
    return f"{what} were {before[what]}, then {after[what]}"


def check_clock(make: Make) -> None:
    """The time of work counts from `begin_work` on, over all sessions; deliveries say how long was worked up to their end."""
    with planned(make) as trial:
        trial.commit([0])
        unsaid = trial.store.record("fit", 0).commits[0].clock
        assert unsaid is None, f"nobody began to work, and a commit says that {unsaid} seconds were worked"
        worked = trial.store.worked_seconds()
        assert worked == 0.0, f"nobody began to work, and {worked} seconds were worked"
        trial.store.begin_work()
        time.sleep(PAUSE)
        trial.commit([1])
        first = trial.store.record("fit", 0).commits[-1].clock
        assert first is not None and first >= PAUSE, f"a commit after {PAUSE} seconds of work says {first}"  # noqa: PT018
        assert trial.store.worked_seconds() >= first, "the time of work goes back after a commit"
        trial.close()
        time.sleep(PAUSE)
        kept = trial.store.worked_seconds()
        assert kept == first, f"between sessions {kept} seconds were worked, the last delivery says {first}"
        trial.store.begin_work()
        began = time.monotonic()
        again = trial.store.worked_seconds()
        assert again >= first, f"a second session begins at {again} seconds of work, the one before ended at {first}"
        trial.commit([2])
        second = trial.store.record("fit", 0).commits[-1].clock
        latest = first + time.monotonic() - began + PAUSE / 2
        assert second is not None and first <= second <= latest, (  # noqa: PT018
            f"a commit of a second session says {second} seconds of work, expected {first} to {latest}"
        )
