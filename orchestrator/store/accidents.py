"""What a run store must survive: harm to anything that it wrote, a crash at any step, metadata that make no sense."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.store.ledger import DONE
from orchestrator.store.manifest import FORMAT_VERSION
from orchestrator.store.trial import Crash, Make, Shape, Storage, Trial, planned, refused, same
from workers.errors import StoreError

MANIFEST = "runs.zarr/zarr.json"
FOLDERS = {"runs.zarr/fit/outputs/": "outputs", "runs.zarr/fit/": "masks", "checkpoints/fit/": "checkpoint"}
FOLDERS["ledger/fit/0"] = "ledger"
"""What `verify` calls damage under keys that begin so; the first that fits counts."""


def check_damage(make: Make) -> None:
    """Verify finds each damaged chunk, record and checkpoint, names it and finds nothing else; then it can be mended."""
    epochs = (1, 2)
    with planned(make) as trial:
        trial.commit(range(10), epochs=epochs)
        storage = trial.storage
        every = storage.keys()
        keys = [key for key in every if _kind(key) and not key.endswith("zarr.json")]
        missing = set(FOLDERS.values()) - {_kind(key) for key in keys}
        assert not missing, f"the storage has no keys of any {min(missing)}: expected those that docs/store.md names"
        for key in _one_of_each(keys):
            for how, content in _harms(storage, key, keys).items():
                trial.close()
                storage.remove(key) if content is None else storage.write(key, content)
                _expect_damage(trial, key, how)
                trial.mend(epochs)
                trial.expect(range(10))


def _kind(key: str) -> str | None:
    return next((kind for start, kind in FOLDERS.items() if key.startswith(start)), None)


def _one_of_each(keys: Sequence[str]) -> list[str]:
    """Return one chunk of each array, one checkpoint and one record: the middle ones."""
    alike: dict[str, list[str]] = {}
    for key in keys:
        folder = key.rpartition("/")[0]
        alike.setdefault(folder if folder.startswith("runs.zarr") else str(_kind(key)), []).append(key)
    return [found[len(found) // 2] for found in alike.values()]


def _harms(storage: Storage, key: str, keys: Sequence[str]) -> dict[str, bytes | None]:
    """Return what may lie under a key after harm, by the harm's name; None where nothing does."""
    good = storage.read(key)
    cut: dict[str, bytes | None] = {"cut": good[: len(good) // 2], "gone": None}
    if _kind(key) == "ledger":
        return cut
    middle = len(good) // 2
    flipped = good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :]
    other = next(one for one in keys if one.rpartition("/")[0] == key.rpartition("/")[0] and one != key)
    return {**cut, "flipped in a bit": flipped, "replaced by another": storage.read(other)}


def _expect_damage(trial: Trial, key: str, how: str) -> None:
    """Raise AssertionError unless verify finds just what was harmed."""
    what = f"{key}, {how},"
    damages = trial.store.verify("fit")
    assert len(damages) == 1, f"{what} is {len(damages)} damages to verify, expected one"
    (damage,) = damages
    assert damage.what == _kind(key), f"{what} is called {damage.what!r}, expected {_kind(key)!r}"
    number = int(re.findall(r"/[^\d/]*(\d+)", key)[0])  # the row of a checkpoint; of chunks and records, the pack
    pack = number // trial.pack if damage.what == "checkpoint" else number
    rows = (number,) if damage.what == "checkpoint" else tuple(trial.rows(pack))
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


def check_refusals(make: Make) -> None:
    """Opening nothing, a newer format or damaged metadata is refused by one line, and the folder can be opened by nobody else."""
    nothing = make()
    for write in (False, True):
        with refused(StoreError, "opening where no store is"):
            nothing.open(write=write)
    assert not nothing.keys(), f"opening where no store is has left {nothing.keys()}"
    with planned(make) as trial:
        trial.commit(range(4))
        trial.close()
        storage, good = trial.storage, trial.storage.read(MANIFEST)
        newer = json.loads(good)
        newer["attributes"]["format_version"] = FORMAT_VERSION + 1
        foreign = json.loads(good)
        foreign["attributes"]["format"] = "other"
        bad = {
            "a store of a newer format": json.dumps(newer).encode(),
            "a store of another format": json.dumps(foreign).encode(),
            "damaged metadata": good[:40],
            "empty metadata": b"",
        }
        for what, content in bad.items():
            storage.write(MANIFEST, content)
            for write in (False, True):
                with refused(StoreError, f"opening {what}"):
                    storage.open(write=write)
        storage.write(MANIFEST, good)
        trial.expect(range(4))


def check_names(make: Make) -> None:
    """Unknown designs and measures are refused."""
    with planned(make) as trial:
        with refused(StoreError, "an unknown design"):
            trial.store.states("fitt")
        with refused(StoreError, "an unknown measure"):
            trial.store.outputs("fit", "margn")
