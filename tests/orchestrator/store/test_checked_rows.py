"""Rows are handed out only while their files are those that were checked, or pass again; nothing larger than the machine is."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.store import checked_rows, manifest
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from workers.errors import StoreError
from workers.runs import Outcome

PLAN = {
    "masks": np.eye(10, 5, dtype=bool),
    "seeds": np.arange(10, dtype=np.uint32) + 7,
    "subsets": np.arange(10, dtype=np.int64) // 2,
    "repeats": np.arange(10, dtype=np.int32) % 3,
}
OUTPUTS = np.arange(30, dtype=np.float32).reshape(10, 3)
DONE = [0, 1, 3, 4, 5, 6, 9]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """Ten rows in packs of four, some of them done, open for reading."""
    layout = DesignLayout("fit", "subsets", "fit", 10, 4)
    paths = SweepPaths(tmp_path / "sweep")
    with RunStore.create(paths, config_hash="x", n=5, t=3, measures=("loss", "margin"), designs=[layout]) as made:
        made.write_plan("fit", 0, **PLAN)
        for pack in range(3):
            mine = [row for row in DONE if row // 4 == pack]
            outcomes = [Outcome(row, {"loss": OUTPUTS[row], "margin": -OUTPUTS[row]}) for row in mine]
            made.commit("fit", pack, outcomes, worker="w", started=1.0, seconds=1.0)
    return RunStore.open(paths)


def expected(sign: int = 1) -> np.ndarray:
    values = np.full((10, 3), np.nan, dtype=np.float32)
    values[DONE] = sign * OUTPUTS[DONE]
    return values


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 10), (0, 4), (4, 8), (3, 5), (2, 9), (9, 10), (5, 5), (10, 10), (0, 0)]
)
def test_any_stretch_of_rows_is_what_was_written(store: RunStore, start: int, stop: int) -> None:
    for _ in range(2):  # checked, and remembered
        for name, values in PLAN.items():
            found = getattr(store, name)("fit", start, stop)
            assert found.dtype == values.dtype
            np.testing.assert_array_equal(found, values[start:stop])
        np.testing.assert_array_equal(store.outputs("fit", "loss", start, stop), expected()[start:stop])
        np.testing.assert_array_equal(store.outputs("fit", "margin", start, stop), expected(-1)[start:stop])


def test_what_was_checked_is_not_checked_again(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("plan_hash", "row_hashes"):
        made = getattr(checked_rows, name)
        monkeypatch.setattr(checked_rows, name, lambda *given, name=name, made=made: asked.append(name) or made(*given))
    store.outputs("fit", "loss", 0, 8)
    assert sorted(asked) == ["plan_hash"] * 2 + ["row_hashes"] * 2
    store.outputs("fit", "margin", 0, 8)
    store.seeds("fit", 0, 8)
    assert len(asked) == 4
    store.outputs("fit", "loss")
    assert sorted(asked) == ["plan_hash"] * 3 + ["row_hashes"] * 3


@pytest.mark.parametrize("read_before", [False, True])
@pytest.mark.parametrize("name", ["masks", "seeds", "subsets", "repeats"])
def test_chunks_of_a_plan_that_changed_places_are_refused(store: RunStore, name: str, read_before: bool) -> None:
    if read_before:
        getattr(store, name)("fit")
    first, second = (store.paths.plan_array("fit", name) / f"c.{pack}{'.0' * (name == 'masks')}" for pack in (0, 1))
    _exchange(first, second)
    with pytest.raises(StoreError, match=r"masks.*readable, but not what was planned"):
        getattr(store, name)("fit", 1, 2)
    getattr(store, name)("fit", 8, 10)
    _exchange(first, second)
    np.testing.assert_array_equal(getattr(store, name)("fit"), PLAN[name])


@pytest.mark.parametrize("read_before", [False, True])
def test_chunks_of_outputs_that_changed_places_are_refused(store: RunStore, read_before: bool) -> None:
    if read_before:
        store.outputs("fit", "margin")
    first, second = (store.paths.output_array("fit", "margin") / f"c.{pack}.0" for pack in (0, 1))
    _exchange(first, second)
    with pytest.raises(StoreError, match=r"row 0 of loss or margin is not what the ledger's hash was taken of"):
        store.outputs("fit", "margin", 0, 1)
    store.outputs("fit", "margin", 8, 10)
    store.outputs("fit", "margin", 2, 3)  # none of these is done
    _exchange(first, second)
    np.testing.assert_array_equal(store.outputs("fit", "margin"), expected(-1))


@pytest.mark.parametrize("changed", [{"hash": "0" * 32}, {"checkpoints": {"1": "0" * 32}}])
def test_a_record_that_is_another_since_its_rows_were_checked_has_them_checked_again(
    store: RunStore, changed: dict[str, Any]
) -> None:
    store.outputs("fit", "loss")
    path = store.paths.record("fit", 1)
    kept = json.loads(path.read_text())
    row = next(one for one in kept["rows"] if one["row"] == 5)
    before = path.read_bytes()
    row |= changed
    path.with_name("other").write_text(json.dumps(kept))
    os.replace(path.with_name("other"), path)
    with pytest.raises(StoreError, match=r"row 5 of loss or margin is not what the ledger's hash was taken of"):
        store.outputs("fit", "loss", 4, 8)
    path.with_name("other").write_bytes(before)
    os.replace(path.with_name("other"), path)
    np.testing.assert_array_equal(store.outputs("fit", "loss"), expected())


def test_a_chunk_that_is_gone_is_named(store: RunStore) -> None:
    path = store.paths.output_array("fit", "loss") / "c.1.0"
    store.outputs("fit", "loss")
    path.unlink()
    with pytest.raises(StoreError, match=rf"{path}.*missing"):
        store.outputs("fit", "loss", 4, 6)
    np.testing.assert_array_equal(store.outputs("fit", "loss", 0, 4), expected()[:4])


def test_rows_of_a_lost_record_are_refused_and_no_others(store: RunStore) -> None:
    store.paths.record("fit", 1).unlink()
    for start, stop in ((4, 5), (7, 8), (3, 5), (7, 9), (0, 10)):
        with pytest.raises(StoreError, match=r"000001\.json.*missing, though its pack was committed"):
            store.outputs("fit", "loss", start, stop)
    for start, stop in ((0, 4), (8, 10)):
        np.testing.assert_array_equal(store.outputs("fit", "loss", start, stop), expected()[start:stop])
    (damage,) = store.lost("fit")
    assert (damage.pack, damage.rows, damage.what) == (1, (4, 5, 6, 7), "ledger")


@pytest.mark.parametrize(
    ("what", "size"), [("masks", 8 * 5), ("seeds", 8 * 4), ("subsets", 8 * 8), ("loss", 8 * 3 * 4)]
)
def test_more_than_the_machine_has_is_refused_before_it_is_read(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, what: str, size: int
) -> None:
    def read(stop: int) -> np.ndarray:
        found: np.ndarray = (
            store.outputs("fit", what, 0, stop) if what == "loss" else getattr(store, what)("fit", 0, stop)
        )
        return found

    monkeypatch.setattr(manifest, "SMALL", 0)
    monkeypatch.setattr(manifest, "total_bytes", lambda: size)
    assert len(read(8)) == 8
    with pytest.raises(StoreError, match=rf"^{what} of 9 rows of design 'fit' takes {size * 9 // 8} bytes"):
        read(9)


def _exchange(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    os.rename(first, aside)
    os.rename(second, first)
    os.rename(aside, second)
