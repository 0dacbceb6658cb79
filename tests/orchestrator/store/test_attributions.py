import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from orchestrator.store import attributions
from orchestrator.store.attributions import list_attributions, read_attribution, write_attribution
from orchestrator.store.paths import SweepPaths
from workers.errors import StoreError

RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((7, 3)).astype(np.float32)
BIAS = RNG.standard_normal(3).astype(np.float32)
ERRORS = RNG.random((7, 3)).astype(np.float32)
ATTRIBUTES = {"measure": "margin", "seconds": 1.5, "details": {"lambda": [0.1, 0.2]}}


@pytest.fixture
def paths(tmp_path: Path) -> SweepPaths:
    return SweepPaths(tmp_path)


def test_what_is_written_is_read(paths: SweepPaths) -> None:
    assert list_attributions(paths) == []
    write_attribution(paths, "trak", VALUES, attributes=ATTRIBUTES)
    write_attribution(paths, "datamodel", VALUES, bias=BIAS, standard_error=ERRORS, attributes=ATTRIBUTES)
    assert list_attributions(paths) == ["datamodel", "trak"]
    values, bias, errors, attributes = read_attribution(paths, "datamodel")
    assert bias is not None
    assert errors is not None
    np.testing.assert_array_equal(values, VALUES)
    np.testing.assert_array_equal(bias, BIAS)
    np.testing.assert_array_equal(errors, ERRORS)
    assert attributes == ATTRIBUTES
    assert read_attribution(paths, "trak")[1:3] == (None, None)


def test_rewriting_replaces_everything(paths: SweepPaths) -> None:
    write_attribution(paths, "a", VALUES, bias=BIAS, attributes=ATTRIBUTES)
    write_attribution(paths, "a", -VALUES, attributes={"measure": "loss"})
    values, bias, _, attributes = read_attribution(paths, "a")
    np.testing.assert_array_equal(values, -VALUES)
    assert bias is None
    assert attributes == {"measure": "loss"}
    assert sorted(os.listdir(paths.attributions)) == ["a", "zarr.json"]


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("step", ["sync_tree", "_write_group"])
def test_a_crash_while_writing_leaves_what_was_there(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch, present: bool, step: str
) -> None:
    if present:
        write_attribution(paths, "a", VALUES, attributes=ATTRIBUTES)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attributions, step, killed)
        with pytest.raises(KeyboardInterrupt):
            write_attribution(paths, "a", -VALUES, attributes=ATTRIBUTES)
    assert list_attributions(paths) == (["a"] if present else [])
    if present:
        np.testing.assert_array_equal(read_attribution(paths, "a")[0], VALUES)
    write_attribution(paths, "a", -VALUES, attributes=ATTRIBUTES)
    np.testing.assert_array_equal(read_attribution(paths, "a")[0], -VALUES)


def test_xarray_reads_it_with_its_dimensions(paths: SweepPaths) -> None:
    xarray = pytest.importorskip("xarray")
    write_attribution(paths, "a", VALUES, bias=BIAS, standard_error=ERRORS, attributes=ATTRIBUTES)
    with xarray.open_zarr(paths.attributions, group="a", consolidated=False) as dataset:
        assert dataset["values"].dims == ("example", "query")
        assert dataset["bias"].dims == ("query",)
        assert dataset.attrs["measure"] == "margin"
        np.testing.assert_array_equal(dataset["values"].to_numpy(), VALUES)


def test_many_chunks_come_back_in_order(paths: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributions, "_CHUNK_BYTES", 24)
    write_attribution(paths, "a", VALUES, attributes={})
    assert len(list(paths.attribution("a").rglob("c/*/0"))) == 4
    np.testing.assert_array_equal(read_attribution(paths, "a")[0], VALUES)


def test_an_unknown_name_is_answered_with_near_ones(paths: SweepPaths) -> None:
    write_attribution(paths, "datamodel", VALUES, attributes={})
    with pytest.raises(StoreError, match="did you mean datamodel"):
        read_attribution(paths, "datamodels")


@pytest.mark.parametrize("victim", ["values/c/0/0", "values/zarr.json", "zarr.json", "bias/c/0", "bias"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_damage_is_refused_by_name(paths: SweepPaths, victim: str, how: str) -> None:
    write_attribution(paths, "a", VALUES, bias=BIAS, attributes={})
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
            write_attribution(paths, "a", VALUES, attributes={}, **wrong)
    with pytest.raises(ValueError, match="has shape"):
        write_attribution(paths, "a", BIAS, attributes={})
    assert list_attributions(paths) == []
