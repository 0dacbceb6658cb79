"""Who reads from a store gets what was written, or is told that it is not there: never what lies there by accident."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.conformance.harm import harmable, harms_to, kind_of, one_of_each, pack_of, row_of
from orchestrator.store.conformance.trial import HELD_OUT, MEASURES, Make, Trial, planned, refused, same
from orchestrator.store.run_store import RunStore
from workers.errors import StoreError

Reads = dict[str, tuple[Callable[[], Any], Any]]
"""Ways to read, by name, and what each must give."""
EPOCHS = (1, 2)
PLAN = ("masks", "seeds", "subsets", "repeats")


def check_reads_of_damage(make: Make) -> None:
    """Whoever reads damaged rows is refused, in a session opened before the harm or after it; other packs are read as ever."""
    with planned(make) as trial:
        trial.commit(range(trial.runs), epochs=EPOCHS)
        trial.close()
        storage, keys = trial.storage, harmable(trial.storage)
        for key in one_of_each(keys):
            good = storage.read(key)
            for how, content in harms_to(storage, key, keys).items():
                with storage.open() as before:
                    _read_all(trial, before)
                    storage.remove(key) if content is None else storage.write(key, content)
                    _expect_no_damaged_value(trial, before, key, f"{key}, {how} since the store was opened,")
                with storage.open() as after:
                    _expect_refusal(trial, after, key, f"{key}, {how},", gone=content is None)
                storage.write(key, good)
        trial.expect(range(trial.runs))


def _read_all(trial: Trial, store: RunStore) -> None:
    for name in PLAN:
        getattr(store, name)("fit")
    for measure in MEASURES:
        store.outputs("fit", measure)
    for row in range(trial.runs):
        store.checkpoints("fit", row)


def _reads(trial: Trial, store: RunStore, key: str) -> Reads:
    """Return the ways to read what lies under a key, and what each must give when that is sound."""
    first = pack_of(key, trial.pack) * trial.pack
    stop = min(first + trial.pack, trial.runs)
    if kind_of(key) == "checkpoint":
        row = row_of(key)
        expected = [trial.outcome(row, epochs=EPOCHS).checkpoints[at].state["w"].tolist() for at in range(len(EPOCHS))]
        return {"checkpoints": (lambda: [one.state["w"].tolist() for one in store.checkpoints("fit", row)], expected)}
    if kind_of(key) == "masks":
        name = key.split("/")[2]
        return {name: (lambda: getattr(store, name)("fit", first, stop), trial.plan(first, stop)[name])}
    measure = key.split("/")[3] if kind_of(key) == "outputs" else MEASURES[0]
    rows = list(range(first, stop))
    found: Reads = {
        "outputs": (lambda: store.outputs("fit", measure, first, stop), trial.outputs_of(rows, measure)),
        "outputs of a row": (
            lambda: store.outputs("fit", measure, stop - 1, stop),
            trial.outputs_of(rows[-1:], measure),
        ),
    }
    if kind_of(key) == "ledger":
        found["finished"] = (lambda: store.finished("fit"), np.arange(trial.runs))
    return found


def _expect_refusal(trial: Trial, store: RunStore, key: str, what: str, *, gone: bool) -> None:
    """Raise AssertionError unless a store that was opened after the harm refuses to read it, and reads what is whole."""
    for name, (read, _) in _reads(trial, store, key).items():
        with refused(StoreError, f"{what} read through `{name}`"):
            read()
    if kind_of(key) == "ledger":
        if gone:
            lost = [damage.pack for damage in store.lost("fit")]
            assert lost == [pack_of(key, trial.pack)], f"{what} is not among the lost packs, which are {lost}"
        return
    assert not store.lost("fit"), f"{what} is no lost record, and `lost` says {store.lost('fit')[0].path}"
    other = (pack_of(key, trial.pack) + 1) % 2 * trial.pack
    stop = other + trial.pack
    with _readable(f"a pack beside {what}"):
        for name in PLAN:
            same(
                getattr(store, name)("fit", other, stop),
                trial.plan(other, stop)[name],
                f"{name} of a pack beside {what}",
            )
        for measure in MEASURES:
            expected = trial.outputs_of(range(other, stop), measure)
            same(store.outputs("fit", measure, other, stop), expected, f"the outputs of a pack beside {what}")


def _expect_no_damaged_value(trial: Trial, store: RunStore, key: str, what: str) -> None:
    """Raise AssertionError where a store that had read everything before the harm gives anything but that, or a refusal."""
    for name, (read, expected) in _reads(trial, store, key).items():
        try:
            found = read()
        except StoreError:
            continue
        except Exception as error:
            raise AssertionError(
                f"{what} read through `{name}` raises {type(error).__name__}, expected StoreError"
            ) from error
        if isinstance(expected, np.ndarray):
            same(found, expected, f"{what} read through `{name}`: the values")
        else:
            assert found == expected, f"{what} read through `{name}`: the values are {found}, expected {expected}"


@contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise AssertionError(f"{what} cannot be read: {error}") from error


def check_verification(make: Make) -> None:
    """Verify finds every damage of the design it is asked about, and of no other, and tells how far it is."""
    with planned(make) as trial:
        trial.commit(range(trial.runs))
        trial.commit_held_out()
        trial.close()
        chunks = [key for key in harmable(trial.storage, ("outputs", "masks", "ledger")) if "/outputs/loss/" in key]
        harmed = {key: trial.storage.read(key) for key in chunks}
        assert len(harmed) == trial.packs, f"the storage has {len(harmed)} chunks of a measure, expected {trial.packs}"
        for key, good in harmed.items():
            trial.storage.write(key, good[:-1])
        steps_told: list[tuple[int, int]] = []
        found = [
            damage.pack for damage in trial.store.verify("fit", lambda done, all_: steps_told.append((done, all_)))
        ]
        assert found == list(range(trial.packs)), f"all packs are damaged, verify finds damage in the packs {found}"
        steps = [(done, trial.packs) for done in range(1, trial.packs + 1)]
        assert steps_told == steps, f"verify told its progress as {steps_told}, expected {steps}"
        others = [damage.path for damage in trial.store.verify(HELD_OUT.name)]
        assert not others, f"verify of one design finds the damage of another: {others[0]}"
        for key, good in harmed.items():
            trial.storage.write(key, good)
        trial.expect(range(trial.runs))


def check_copies(make: Make) -> None:
    """What is handed out is the caller's own: who writes into it changes nothing that the store says."""
    with planned(make) as trial:
        trial.commit(range(trial.pack))
        store = trial.store
        reads: dict[str, Callable[[], NDArray[Any]]] = {
            **{name: partial(getattr(store, name), "fit") for name in (*PLAN, "states", "finished")},
            "outputs": lambda: store.outputs("fit", "loss"),
        }
        for name, read in reads.items():
            kept = read().copy()
            found = read()
            if found.flags.writeable:
                found[...] = np.zeros_like(found) if kept.any() and name != "masks" else ~kept
            same(read(), kept, f"after a caller wrote into them, the {name}")
        store.attributes["task"] = "other"
        assert store.attributes == trial.contents["attributes"], (
            "a caller who wrote into `attributes` changed the store's"
        )
        trial.expect(range(trial.pack))
