"""What a run store must survive: harm to anything that it wrote, and a crash at any step."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from orchestrator.store.conformance.harm import harmable, harms_to, kind_of, one_of_each, pack_of, row_of
from orchestrator.store.conformance.storage import Crash, Storage
from orchestrator.store.conformance.trial import Make, Shape, Trial, planned, same
from orchestrator.store.ledger import DONE
from workers.errors import StoreError


def check_damage(make: Make) -> None:
    """Verify finds each damaged chunk, record and checkpoint, names it and finds nothing else; then it can be mended."""
    epochs = (1, 2)
    with planned(make) as trial:
        trial.commit(range(10), epochs=epochs)
        storage = trial.storage
        keys = harmable(storage)
        for key in one_of_each(keys):
            for how, content in harms_to(storage, key, keys).items():
                trial.close()
                storage.remove(key) if content is None else storage.write(key, content)
                _expect_damage(trial, key, how)
                trial.mend(epochs)
                trial.expect(range(10))


def _expect_damage(trial: Trial, key: str, how: str) -> None:
    """Raise AssertionError unless verify finds just what was harmed."""
    what = f"{key}, {how},"
    damages = trial.store.verify("fit")
    assert len(damages) == 1, f"{what} is {len(damages)} damages to verify, expected one"
    (damage,) = damages
    assert damage.what == kind_of(key), f"{what} is called {damage.what!r}, expected {kind_of(key)!r}"
    pack = pack_of(key, trial.pack)
    rows = (row_of(key),) if damage.what == "checkpoint" else tuple(trial.rows(pack))
    found = (damage.design, damage.pack, damage.rows)
    assert found == ("fit", pack, rows), f"{what} is said to touch design, pack and rows {found}"
    if how != "replaced by another":  # whole, but wrong: that of the several arrays of a pack it is cannot be known
        assert damage.path.as_posix().endswith(key), f"{what} is said to be in {damage.path}"


def check_crashes(make: Make) -> None:
    """A crash at any step of creating, growing and planning, or committing leaves all as before or all done."""
    _check_crashes_of_commits(make)
    _check_crashes_of_growth(make)
    _check_crashes_of_creation(make)


def _check_crashes_of_commits(make: Make) -> None:
    with planned(make) as trial:
        trial.commit([0, 1], epochs=(1,))

        def delivered(rows: list[int], step: int) -> bool:
            died = _dies(trial.storage, step, lambda: trial.commit(rows, epochs=(1,)))
            trial.close()
            done = np.flatnonzero(trial.store.states("fit") == DONE).tolist()
            assert done in ([0, 1], [0, 1, *rows]), (
                f"a commit of the rows {rows} died: done are {done}, all or none expected"
            )
            assert died or len(done) > 2, f"a commit of the rows {rows} went well, done are {done}"
            trial.expect(done)
            return died

        for rows in ([2, 3], [4, 5, 6, 7]):
            for step in itertools.count():
                if not delivered(rows, step):
                    break
                trial.store.forget("fit", rows)
            assert step, "a commit makes no durable change: expected `dying` to count them"
            trial.store.forget("fit", rows)
        trial.commit(range(2, 10), epochs=(1,))
        trial.expect(range(10))


def _check_crashes_of_growth(make: Make) -> None:
    before, after = 3, 5
    for step in itertools.count():
        with planned(make, Shape(before, 2)) as trial:
            trial.commit(range(before))

            def grow(trial: Trial = trial) -> None:
                trial.store.extend("fit", after)
                trial.write_plan(after)

            died = _dies(trial.storage, step, grow)
            trial.close()
            runs = trial.store.designs["fit"].runs
            assert runs in (before, after), f"a growth from {before} to {after} rows died: the design has {runs} rows"
            assert died or trial.store.planned("fit"), "a growth went well, but `planned` is false"
            trial.expect(range(before))
            trial.store.extend("fit", after)
            if not trial.store.planned("fit"):
                trial.write_plan(after)
            same(trial.store.masks("fit"), trial.plan(0, after)["masks"], "masks of a growth that died and went on")
            trial.commit(range(before, after))
            trial.expect(range(after))
            if not died:
                return


def _check_crashes_of_creation(make: Make) -> None:
    for step in itertools.count():
        with Trial(make(), runs=3, pack=2) as trial:

            def create(trial: Trial = trial) -> None:
                trial.storage.create(trial.contents).close()

            died = _dies(trial.storage, step, create)
            if _nothing(trial.storage):
                assert died, "creating a store went well, but there is none"
                trial.create()
            trial.write_plan(3).commit(range(3))
            trial.expect(range(3))
            if not died:
                return


def _dies(storage: Storage, step: int, work: Callable[[], None]) -> bool:
    """Do some work that dies at a step; say whether it had so many."""
    try:
        with storage.dying(step):
            work()
    except Crash:
        return True
    return False


def _nothing(storage: Storage) -> bool:
    try:
        storage.open().close()
    except StoreError:
        return True
    return False
