"""A plan counts when all of it is written, in whatever order and however often, and only as it was written first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from workers.errors import StoreError

N = 5


def plan(start: int, stop: int) -> dict[str, Any]:
    rows = np.arange(start, stop)
    return {
        "masks": rows[:, None] % np.arange(2, 2 + N) == 0,
        "seeds": rows.astype(np.uint32),
        "subsets": rows.astype(np.int64),
        "repeats": rows.astype(np.int32),
    }


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """Ten rows in packs of four, none of them planned."""
    layout = DesignLayout("fit", "subsets", "fit", 10, 4)
    return RunStore.create(
        SweepPaths(tmp_path / "sweep"), config_hash="x", n=N, t=1, measures=("loss",), designs=[layout]
    )


@pytest.mark.parametrize(
    "parts",
    [
        [(0, 10)],
        [(0, 4), (4, 8), (8, 10)],
        [(8, 10), (0, 8)],
        [(0, 4), (0, 4), (0, 4), (0, 8), (4, 10)],
        [(4, 8), (0, 4), (4, 8), (8, 10)],
    ],
)
def test_it_is_complete_with_its_last_pack(store: RunStore, parts: list[tuple[int, int]]) -> None:
    for start, stop in parts:
        assert not store.planned("fit")
        store.write_plan("fit", start, **plan(start, stop))
    assert store.planned("fit")
    for name, values in plan(0, 10).items():
        np.testing.assert_array_equal(getattr(store, name)("fit"), values)
    store.close()
    with RunStore.open(store.paths) as reader:
        assert reader.planned("fit")
        np.testing.assert_array_equal(reader.masks("fit"), plan(0, 10)["masks"])


def test_part_of_it_is_not_remembered(store: RunStore) -> None:
    store.write_plan("fit", 0, **plan(0, 8))
    store.close()
    with RunStore.open(store.paths, write=True) as again:
        assert not again.planned("fit")
        again.write_plan("fit", 8, **plan(8, 10))
        assert not again.planned("fit")
        again.write_plan("fit", 0, **plan(0, 8))
        assert again.planned("fit")


def test_a_design_that_grows_is_planned_again_from_its_first_new_row(store: RunStore) -> None:
    store.write_plan("fit", 0, **plan(0, 10))
    store.extend("fit", 14)
    assert not store.planned("fit")
    with pytest.raises(StoreError, match=r"plan\.json does not say that all rows of design 'fit' are planned"):
        store.masks("fit", 8, 11)
    np.testing.assert_array_equal(store.masks("fit", 8, 10), plan(8, 10)["masks"])
    other = plan(8, 12)
    other["seeds"][1] += 1
    with pytest.raises(StoreError, match=r"^the plan of rows 8\.\.9 of design 'fit' differs from the one in .*masks"):
        store.write_plan("fit", 8, **other)
    store.write_plan("fit", 8, **plan(8, 12))
    assert not store.planned("fit")
    store.write_plan("fit", 12, **plan(12, 14))
    assert store.planned("fit")
    np.testing.assert_array_equal(store.subsets("fit"), np.arange(14))


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2, 6), (0, 6), (8, 9), (4, 4), (8, 12), (12, 13)])
def test_parts_of_packs_are_refused(store: RunStore, start: int, stop: int) -> None:
    said = rf"^rows {start}\.\.{stop - 1} are no whole packs of 'fit', which has 10 rows in packs of 4$"
    with pytest.raises(ValueError, match=said):
        store.write_plan("fit", start, **plan(start, stop))


def test_what_does_not_fit_is_refused_with_what_would(store: RunStore) -> None:
    good = plan(0, 4)
    with pytest.raises(ValueError, match=r"^masks has shape \(4, 4\), expected \(4, 5\)$"):
        store.write_plan("fit", 0, **{**good, "masks": good["masks"][:, 1:]})
    with pytest.raises(ValueError, match=r"^seeds has shape \(3,\), expected \(4,\)$"):
        store.write_plan("fit", 0, **{**good, "seeds": good["seeds"][1:]})
    with pytest.raises(ValueError, match=r"^repeats holds values that are not of type int32$"):
        store.write_plan("fit", 0, **{**good, "repeats": np.full(4, 2**40)})
