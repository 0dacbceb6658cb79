"""What a run store promises in one session and over several, whatever the shape of its designs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from orchestrator.store.conformance.trial import (
    HELD_OUT,
    MEASURES,
    PROVENANCE,
    USUAL,
    Make,
    N,
    Shape,
    T,
    Trial,
    planned,
    refused,
    same,
)
from orchestrator.store.ledger import DONE, PENDING
from orchestrator.store.run_store import RunStore
from workers.errors import LeaseError, StoreError


def check_creation(make: Make, shape: Shape = USUAL) -> None:
    """A store knows what it was created with, has only pending rows, and is not created twice."""
    with planned(make, shape) as trial:
        store, contents = trial.store, trial.contents
        known = (store.config_hash, store.n, store.t, store.measures, store.attributes)
        given = (contents["config_hash"], N, T, MEASURES, contents["attributes"])
        assert known == given, f"the store says that it was created with {known}, expected {given}"
        designs = list(store.designs.items())
        assert designs == [(one.name, one) for one in contents["designs"]], (
            f"the store says that its designs are {designs}"
        )
        trial.expect(done=[])
        trial.close()
        for write in (False, True):
            with trial.storage.open(write=write) as opened:
                assert not opened.is_new, "a store that was opened says that it was created in this session"
        with refused(StoreError, "creating a store where one is"):
            trial.storage.create(contents)
        trial.expect(done=[])


def check_plan(make: Make, shape: Shape = USUAL) -> None:
    """A plan is durable once every pack's is written, comes back bit by bit, and does not change."""
    with planned(make, shape) as trial:
        assert trial.store.planned("fit"), "the plan of every pack is written, but `planned` is false"
        assert not trial.store.planned(HELD_OUT.name), "no plan is written, but `planned` is true"
        whole = trial.plan(0, shape.runs)
        for name, expected in whole.items():
            same(getattr(trial.store, name)("fit"), expected, name)
            same(getattr(trial.store, name)("fit", 1, 3), expected[1:3], f"{name} of rows 1..2")
        first = trial.plan(0, len(trial.rows(0)))
        with refused(StoreError, "a plan that differs from the one before"):
            trial.store.write_plan("fit", 0, **{**first, "masks": ~first["masks"]})
        same(trial.store.masks("fit"), whole["masks"], "masks after a refused plan")
        with refused(ValueError, "the plan of a part of a pack"):
            trial.store.write_plan("fit", 0, **trial.plan(0, shape.runs + 1))


def check_commits(make: Make, shape: Shape = USUAL) -> None:
    """Packs are committed whole or in parts, in any order; done rows come back bit by bit, others are NaN."""
    with planned(make, shape) as trial:
        packs = [trial.rows(pack) for pack in range(trial.store.designs["fit"].packs)]
        done: list[int] = []
        for rows in reversed(packs[1:]):
            trial.commit(rows)
            done += rows
            trial.expect(done)
        for row in packs[0]:
            trial.commit([row])
            done.append(row)
            trial.expect(done)
        commits = trial.store.record("fit", 0).commits
        found = [(one.rows, one.worker, one.started, one.seconds, one.provenance) for one in commits]
        expected = [((row,), "w0", 1.7e9, 2.5, PROVENANCE) for row in packs[0]]
        assert found == expected, f"the record has the commits {found}, expected {expected}"
        states = trial.store.states(HELD_OUT.name).tolist()
        assert states == [PENDING] * HELD_OUT.runs, f"commits to one design changed another's states to {states}"
        with refused(ValueError, "committing a done row again"):
            trial.commit(packs[0][:1])


def check_parts(make: Make, shape: Shape = USUAL) -> None:
    """A stretch of rows is the part of the whole, wherever it begins and ends."""
    with planned(make, shape) as trial:
        trial.commit(trial.rows(trial.store.designs["fit"].packs - 1))
        store = trial.store
        outputs, states = store.outputs("fit", "loss"), store.states("fit")
        for start in range(shape.runs + 1):
            for stop in range(start, shape.runs + 1):
                part = f"of rows {start}..{stop - 1}"
                same(store.outputs("fit", "loss", start, stop), outputs[start:stop], f"the outputs {part}")
                same(store.states("fit", start, stop), states[start:stop], f"the states {part}")


def check_failures(make: Make, shape: Shape = USUAL) -> None:
    """A failed row keeps its reason, has no outputs, and may be tried again."""
    with planned(make, shape) as trial:
        rows = trial.rows(0)
        trial.commit(rows[:1], fail=True)
        trial.expect(done=[], failed=rows[:1])
        trial.commit(rows[1:])
        trial.expect(done=rows[1:], failed=rows[:1])
        trial.store.forget("fit", rows[:1])
        trial.expect(done=rows[1:])
        trial.commit(rows[:1])
        trial.expect(done=rows)
        trial.store.forget("fit", rows[:1])
        trial.commit(rows[:1], fail=True)
        trial.commit(rows[:1])  # it need not be forgotten first
        trial.expect(done=rows)


def check_forgetting(make: Make, shape: Shape = USUAL) -> None:
    """A forgotten row is pending, its neighbours stay, and it can be trained again."""
    with planned(make, shape) as trial:
        every = range(shape.runs)
        trial.commit(every)
        trial.store.forget("fit", [1])
        trial.expect(row for row in every if row != 1)
        trial.commit([1])
        trial.expect(every)


def check_checkpoints(make: Make, shape: Shape = USUAL) -> None:
    """Checkpoints come back by ascending epoch, and are forgotten with their row."""
    with planned(make, shape) as trial:
        row = trial.rows(0)[-1]
        trial.commit([row], epochs=(0, 2, 10))
        kept = trial.store.checkpoints("fit", row)
        found = [(one.epoch, one.step, one.learning_rate, one.state["w"].tolist()) for one in kept]
        expected = [(e, 10 * e, 0.1, [[float(row + e)] * 2] * 2) for e in (0, 2, 10)]
        assert found == expected, f"the checkpoints are {found}, expected {expected}"
        trial.expect([row])
        trial.store.forget("fit", [row])
        assert trial.store.checkpoints("fit", row) == (), "a forgotten row still has checkpoints"
        keys = trial.storage.keys()
        left = [key for key in keys if key.startswith(f"checkpoints/fit/{row}/")]
        assert not left, f"a forgotten row's checkpoints still lie there: {left}"


def check_growth(make: Make, shape: Shape = USUAL) -> None:
    """A design grows, alone; its earlier rows stay as they are, also to whoever reads them meanwhile; it does not shrink."""
    with planned(make, shape) as trial:
        before, after = shape.runs, shape.runs + 9
        trial.commit(range(before))
        with trial.storage.open() as reader:
            _grow(trial, before, after)
            trial.expect(range(before), store=reader)
            assert reader.planned("fit"), "a reader from before a design grew says that it is not planned"
            for name, expected in trial.plan(0, before).items():
                same(getattr(reader, name)("fit"), expected, f"to a reader from before a design grew, the {name}")
        with refused(StoreError, "cutting a design"):
            trial.store.extend("fit", before)


def _grow(trial: Trial, before: int, after: int) -> None:
    """Let `fit` grow in two steps, plan and commit its new rows."""
    for runs in (before + 1, after):
        trial.store.extend("fit", runs)
        has = trial.store.designs["fit"].runs
        assert has == runs, f"a design that grew to {runs} rows has {has}"
        other = trial.store.designs[HELD_OUT.name].runs
        assert other == HELD_OUT.runs, f"a design grew, and another one has {other} rows, expected {HELD_OUT.runs}"
        assert not trial.store.planned("fit"), "a design that grew is `planned` before its new rows' plan is written"
        trial.expect(range(before))
    trial.write_plan(after)
    assert trial.store.planned("fit"), "the plan of a design that grew is written, but `planned` is false"
    same(trial.store.masks("fit"), trial.plan(0, after)["masks"], "masks of a design that grew")
    trial.commit(range(before, after))
    trial.expect(range(after))


def check_one_writer(make: Make, shape: Shape = USUAL) -> None:
    """One writer at a time, and readers meanwhile, who see what it has committed and write nothing."""
    with planned(make, shape) as trial:
        writer = trial.store
        with refused(LeaseError, "a second writer"):
            trial.storage.open(write=True)
        with trial.storage.open() as reader:
            rows = list(writer.designs["fit"].rows(0))
            writer.commit("fit", 0, [trial.outcome(row) for row in rows], worker="w", started=0.0, seconds=0.0)
            seen = np.flatnonzero(reader.states("fit") == DONE).tolist()
            assert seen == rows, f"the writer committed the rows {rows}, a reader sees {seen}"
            same(reader.outputs("fit", "loss"), writer.outputs("fit", "loss"), "the outputs that a reader sees")
            _expect_no_writing(trial, reader, "a store opened for reading")
        trial.expect(rows)
        trial.close()
        with trial.storage.open(write=True):
            _expect_no_writing(trial, writer, "a store that was closed")
        trial.expect(rows)


def _expect_no_writing(trial: Trial, store: RunStore, what: str) -> None:
    rows = list(store.designs["fit"].rows(0))
    last = trial.outcome(trial.runs - 1)
    writes: Mapping[str, Callable[[], None]] = {
        "committing": lambda: store.commit("fit", trial.packs - 1, [last], worker="w", started=0.0, seconds=0.0),
        "forgetting": lambda: store.forget("fit", [0]),
        "growing": lambda: store.extend("fit", trial.runs + 1),
        "planning": lambda: store.write_plan("fit", 0, **trial.plan(0, len(rows))),
    }
    for name, write in writes.items():
        with refused(StoreError, f"{name} in {what}"):
            write()
