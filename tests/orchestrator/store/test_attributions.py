import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.store import attributions
from orchestrator.store.attributions import (
    Attributes,
    StoredAttribution,
    content_hash_of,
    list_attributions,
    read_attributes_of,
    read_attribution,
    remove_attribution,
    write_attribution,
)
from orchestrator.store.metadata import ArrayMetadata
from orchestrator.store.paths import SweepPaths
from workers.errors import StoreError

RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((7, 3)).astype(np.float32)
BIAS = RNG.standard_normal(3).astype(np.float32)
ERRORS = RNG.random((7, 3)).astype(np.float32)
ATTRIBUTES = Attributes(
    estimator="datamodel",
    options={"folds": 5},
    measure="margin",
    needs=("subsets",),
    fitted_on=("fit",),
    models=40,
    seconds=1.5,
    train_seconds=8.0,
    stamp="decided by this",
    degrees_of_freedom=39.0,
    details={"lambda": [0.1, 0.2]},
)
OTHER = Attributes(estimator="trak", measure="loss")
WHOLE = StoredAttribution(VALUES, ATTRIBUTES, BIAS, ERRORS, VALUES[:, 0], ERRORS[:, 0])


@pytest.fixture
def paths(tmp_path: Path) -> SweepPaths:
    return SweepPaths(tmp_path)


def test_what_is_written_is_read(paths: SweepPaths) -> None:
    assert list_attributions(paths) == []
    write_attribution(paths, "trak", StoredAttribution(VALUES, ATTRIBUTES))
    write_attribution(paths, "datamodel", WHOLE)
    assert list_attributions(paths) == ["datamodel", "trak"]
    found = read_attribution(paths, "datamodel")
    assert found.attributes == ATTRIBUTES
    assert found.arrays().keys() == WHOLE.arrays().keys()
    for name, expected in WHOLE.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], expected)
        assert getattr(found, name).dtype == np.float32
    assert found.content_hash == content_hash_of(paths, "datamodel") != ""
    assert list(read_attribution(paths, "trak").arrays()) == ["values"]


def test_rewriting_replaces_everything(paths: SweepPaths) -> None:
    write_attribution(paths, "a", StoredAttribution(VALUES, ATTRIBUTES, BIAS))
    write_attribution(paths, "a", StoredAttribution(-VALUES, OTHER))
    found = read_attribution(paths, "a")
    np.testing.assert_array_equal(found.values, -VALUES)
    assert found.bias is None
    assert found.attributes == OTHER
    assert sorted(os.listdir(paths.attributions)) == ["a", "zarr.json"]


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("step", ["durable.sync_tree", "attributions._write_group"])
def test_a_crash_while_writing_leaves_what_was_there(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch, present: bool, step: str
) -> None:
    if present:
        write_attribution(paths, "a", StoredAttribution(VALUES, ATTRIBUTES))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"orchestrator.store.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            write_attribution(paths, "a", StoredAttribution(-VALUES, ATTRIBUTES))
    assert list_attributions(paths) == (["a"] if present else [])
    if present:
        np.testing.assert_array_equal(read_attribution(paths, "a").values, VALUES)
    write_attribution(paths, "a", StoredAttribution(-VALUES, ATTRIBUTES))
    np.testing.assert_array_equal(read_attribution(paths, "a").values, -VALUES)


def test_xarray_reads_it_with_its_dimensions(paths: SweepPaths) -> None:
    xarray = pytest.importorskip("xarray")
    write_attribution(paths, "a", WHOLE)
    with xarray.open_zarr(paths.attributions, group="a", consolidated=False) as dataset:
        assert dataset["values"].dims == ("example", "query")
        assert dataset["bias"].dims == ("query",)
        assert dataset.attrs["measure"] == "margin"
        np.testing.assert_array_equal(dataset["values"].to_numpy(), VALUES)


def test_many_chunks_come_back_in_order(paths: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributions, "_CHUNK_BYTES", 24)
    write_attribution(paths, "a", StoredAttribution(VALUES, ATTRIBUTES))
    assert len(list(paths.attribution("a").rglob("c/*/0"))) == 4
    np.testing.assert_array_equal(read_attribution(paths, "a").values, VALUES)


def test_an_unknown_name_is_answered_with_near_ones(paths: SweepPaths) -> None:
    write_attribution(paths, "datamodel", StoredAttribution(VALUES, ATTRIBUTES))
    with pytest.raises(StoreError, match="did you mean datamodel"):
        read_attribution(paths, "datamodels")


@pytest.mark.parametrize("victim", ["values/c/0/0", "values/zarr.json", "zarr.json", "bias/c/0", "bias"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_damage_is_refused_by_name(paths: SweepPaths, victim: str, how: str) -> None:
    write_attribution(paths, "a", StoredAttribution(VALUES, ATTRIBUTES, BIAS))
    path = paths.attribution("a") / victim
    if path.is_dir():
        shutil.rmtree(path)
    elif how == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreError, match=str(paths.attribution("a"))) as caught:
        read_attribution(paths, "a")
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_fit_are_refused(paths: SweepPaths) -> None:
    for wrong in ({"bias": VALUES}, {"bias": BIAS[:2]}, {"standard_error": ERRORS.T}):
        with pytest.raises(ValueError, match="has shape"):
            write_attribution(paths, "a", StoredAttribution(VALUES, ATTRIBUTES, **wrong))
    with pytest.raises(ValueError, match="has shape"):
        write_attribution(paths, "a", StoredAttribution(BIAS, ATTRIBUTES))
    assert list_attributions(paths) == []


def test_the_file_holds_plain_attributes(paths: SweepPaths) -> None:
    write_attribution(paths, "a", StoredAttribution(VALUES, OTHER))
    plain = json.loads((paths.attribution("a") / "zarr.json").read_text())["attributes"]
    assert plain.pop("content_hash")
    assert list(plain) == [
        *("estimator", "package", "source", "claims_units", "options", "measure", "needs", "fitted_on", "models"),
        *("seconds", "train_seconds", "stamp"),
        *("provenance", "rows", "degrees_of_freedom", "details"),
    ]
    assert plain["degrees_of_freedom"] is None, "JSON has no infinity"
    assert read_attributes_of(paths, "a") == OTHER


def test_one_that_is_replaced_while_it_is_read_is_read_again(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_attribution(paths, "a", WHOLE)
    read_array, replaced = attributions._read_array, []

    def slow(path: Path, said: ArrayMetadata) -> attributions.Floats:
        found = read_array(path, said)
        if len(replaced) < 3:
            replaced.append(path)
            write_attribution(paths, "a", StoredAttribution(VALUES - len(replaced), OTHER, BIAS - len(replaced)))
        return found

    monkeypatch.setattr(attributions, "_read_array", slow)
    found = read_attribution(paths, "a")
    assert len(replaced) == 3
    np.testing.assert_array_equal(found.values, VALUES - 3)
    assert found.attributes == OTHER


@pytest.mark.parametrize("read", [read_attribution, read_attributes_of])
def test_one_that_takes_its_place_just_then_is_waited_for(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch, read: Callable[[SweepPaths, str], object]
) -> None:
    write_attribution(paths, "a", StoredAttribution(VALUES, ATTRIBUTES))
    new = paths.attribution("a")
    old = new.with_name(".a.old.partial")
    new.rename(old)
    monkeypatch.setattr(attributions.time, "sleep", lambda _: old.rename(new))
    assert read(paths, "a")


def test_one_that_a_killed_process_left_nowhere_is_not_there(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_attribution(paths, "a", StoredAttribution(VALUES, ATTRIBUTES))
    new = paths.attribution("a")
    new.rename(new.with_name(".a.old.partial"))
    waited: list[float] = []
    monkeypatch.setattr(attributions.time, "sleep", waited.append)
    with pytest.raises(StoreError, match="has no attribution 'a'"):
        read_attribution(paths, "a")
    assert 0 < sum(waited) < 1


def test_one_that_is_removed_is_there_whole_or_not_at_all(paths: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    write_attribution(paths, "a", WHOLE)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_attribution(paths, "a")
    assert list_attributions(paths) == []


def test_damage_is_said_at_once(paths: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    write_attribution(paths, "a", WHOLE)
    (paths.attribution("a") / "values/c/0/0").unlink()

    def refuse(_: float) -> None:
        raise AssertionError("nothing is being replaced")

    monkeypatch.setattr(attributions.time, "sleep", refuse)
    with pytest.raises(StoreError, match="is damaged"):
        read_attribution(paths, "a")


def test_attributes_are_read_without_arrays_and_everything_is_hashed_once(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_attribution(paths, "a", WHOLE)
    hashed, read = [], []
    digest, read_array = attributions._digest, attributions._read_array
    monkeypatch.setattr(attributions, "_digest", lambda arrays: hashed.append(1) or digest(arrays))  # type: ignore[func-returns-value]
    monkeypatch.setattr(
        attributions, "_read_array", lambda path, said: read.append(path.name) or read_array(path, said)
    )  # type: ignore[func-returns-value]
    assert read_attributes_of(paths, "a") == ATTRIBUTES
    assert (hashed, read) == ([], [])
    read_attribution(paths, "a")
    assert len(hashed) == 1
    assert sorted(read) == sorted(WHOLE.arrays())


def test_attributes_of_a_folder_that_is_no_attribution(paths: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.store.attributions.time.sleep", lambda _: pytest.fail("it is said at once"))
    write_attribution(paths, "a", StoredAttribution(VALUES, OTHER))
    metadata = paths.attribution("a") / "zarr.json"
    plain = json.loads(metadata.read_text())
    del plain["attributes"]["measure"]
    metadata.write_text(json.dumps(plain))
    said = rf"^{paths.attribution('a')} is no attribution of counterfactory: it names no estimator or no measure$"
    for read in (read_attributes_of, read_attribution):
        with pytest.raises(StoreError, match=said):
            read(paths, "a")
    with pytest.raises(StoreError, match="has no attribution 'b'"):
        read_attributes_of(paths, "b")
