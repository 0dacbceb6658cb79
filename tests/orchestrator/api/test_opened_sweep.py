"""A folder opened for looking: what is read is what the store holds, in words and shapes that the field knows."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import orchestrator
from orchestrator.store.ledger import DONE
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from workers.errors import ConfigError, StoreError, UserError


@pytest.fixture
def opened(finished_sweep: Path) -> orchestrator.OpenedSweep:
    return orchestrator.open_sweep(finished_sweep)


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of a folder with its size and time."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_runs_are_those_of_the_store(opened: orchestrator.OpenedSweep, finished_sweep: Path) -> None:
    runs = opened.runs("heldout")
    assert isinstance(runs, xr.Dataset)
    assert dict(runs.sizes) == {"run": 12, "example": 60, "query": 8}
    assert set(runs.data_vars) == {"masks", "seeds", "subsets", "repeats", "margin", "loss"}
    with RunStore.open(SweepPaths(finished_sweep)) as store:
        np.testing.assert_array_equal(runs["masks"], store.masks("heldout"))
        np.testing.assert_array_equal(runs["margin"], store.outputs("heldout", "margin"))
        np.testing.assert_array_equal(runs["seeds"], store.seeds("heldout"))
        np.testing.assert_array_equal(runs["subsets"], store.subsets("heldout"))
        np.testing.assert_array_equal(runs["repeats"], store.repeats("heldout"))
    assert (runs.attrs["kind"], runs.attrs["purpose"], runs.attrs["queries"]) == ("subsets", "score", "task")


@pytest.mark.parametrize(
    "index",
    [
        {"run": 3},
        {"run": slice(2, 9, 3)},
        {"run": [7, 0, 7]},
        {"run": -1, "query": 2},
        {"run": [1, 5], "query": [6, 0]},
        {"query": slice(None, None, -1)},
        {"run": []},
    ],
)
def test_a_part_of_the_runs_is_that_part_of_all(opened: orchestrator.OpenedSweep, index: dict[str, object]) -> None:
    np.testing.assert_array_equal(opened.runs("fit")["loss"].isel(index), opened.runs("fit")["loss"].load().isel(index))


def test_only_the_rows_asked_for_are_read(opened: orchestrator.OpenedSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int | None]] = []
    outputs = RunStore.outputs

    def watched(store: RunStore, design: str, measure: str, start: int = 0, stop: int | None = None) -> object:
        read.append((start, stop))
        return outputs(store, design, measure, start, stop)

    monkeypatch.setattr(RunStore, "outputs", watched)
    runs = opened.runs("fit")
    assert read == []
    runs["margin"].isel(run=slice(4, 6)).load()
    assert read == [(4, 6)]


def test_runs_that_are_not_done_are_not_there(sweep_copy: Path) -> None:
    with RunStore.open(SweepPaths(sweep_copy), write=True) as store:
        store.forget("fit", [0, 5])
        left = np.flatnonzero(store.states("fit") == DONE)
    runs = orchestrator.open_sweep(sweep_copy).runs("fit")
    np.testing.assert_array_equal(runs["run"], left)
    assert np.isfinite(runs["margin"]).all()


def test_an_attribution_names_its_measure_and_where_it_comes_from(opened: orchestrator.OpenedSweep) -> None:
    tau = opened.attribution("difference_in_means")
    assert isinstance(tau, xr.DataArray)
    assert tau.dims == ("example", "query")
    assert tau.shape == (60, 8)
    assert tau.attrs["measure"] == "margin"
    assert tau.attrs["fitted_on"] == ["fit"]
    assert tau.attrs["models"] == 20
    assert json.loads(tau.attrs["options"]) == {"design": None}
    assert tau.coords["standard_error"].dims == ("example", "query")


def test_scores_are_a_table_that_shows_itself(opened: orchestrator.OpenedSweep) -> None:
    scores = opened.scores()
    assert isinstance(scores, pd.DataFrame)
    assert set(scores["estimator"]) == {"random", "tracin", "difference_in_means"}
    assert "difference_in_means" in scores._repr_html_()
    assert type(scores[["estimator", "value"]]) is pd.DataFrame


def test_top_names_both_ends_in_words(opened: orchestrator.OpenedSweep) -> None:
    tau = np.asarray(opened.attribution("tracin"))[:, 3]
    top = opened.top(3, "tracin", k=4)
    helpful, harmful = top[top["effect"] == "helpful"], top[top["effect"] == "harmful"]
    np.testing.assert_array_equal(helpful["example"], np.argsort(-tau, kind="stable")[:4])
    np.testing.assert_array_equal(harmful["example"], np.argsort(tau, kind="stable")[:4])
    np.testing.assert_array_equal(helpful["value"], tau[helpful["example"]].astype(np.float64))
    assert set(top["label"]) <= set("0123456789")
    assert top.attrs["query_label"] in set("0123456789")


def test_on_a_loss_what_lowers_it_helps(tiny: dict[str, object], tmp_path: Path, ray_started: None) -> None:
    loss = {**tiny, "measures": ["loss"], "estimators": {"tracin": {}}, "folder": str(tmp_path)}
    top = orchestrator.run(loss, out=tmp_path / "sweep").top(0, "tracin", k=2)
    assert (top.loc[top["effect"] == "helpful", "value"] < 0).all()
    assert (top.loc[top["effect"] == "harmful", "value"] > 0).all()


def test_runs_travel_to_another_process_unread(opened: orchestrator.OpenedSweep) -> None:
    runs = opened.runs("fit")
    xr.testing.assert_equal(pickle.loads(pickle.dumps(runs)), runs)


def test_an_object_can_be_looked_at_when_its_folder_is_gone(sweep_copy: Path) -> None:
    sweep = orchestrator.open_sweep(sweep_copy)
    assert {sweep: 1}[sweep] == 1
    shutil.rmtree(sweep_copy)
    assert "holds no runs" in repr(sweep)


def test_status_and_failures(opened: orchestrator.OpenedSweep) -> None:
    assert (opened.status().done, opened.status().failed, opened.status().pending) == (42, 0, 0)
    assert opened.failures().empty
    assert list(opened.failures().columns) == ["design", "row", "kind", "message", "traceback"]
    assert repr(opened).endswith("42 runs done>")
    assert "tiny" in opened._repr_html_()


def test_nothing_is_written_printed_or_run(
    sweep_copy: Path, capsys: pytest.CaptureFixture[str], rewrite: Callable[..., None]
) -> None:
    """Whatever a stranger's configuration names as its task, looking does not build it."""
    rewrite(sweep_copy, task={"name": "nowhere.py:Bomb", "arguments": {}})
    before = everything(sweep_copy)
    sweep = orchestrator.open_sweep(sweep_copy)
    sweep.runs("fit").load()
    sweep.attribution("tracin")
    sweep.top(0, "tracin")
    sweep.scores()
    sweep.failures()
    sweep.status()
    assert sweep._repr_html_()
    assert repr(sweep)
    assert everything(sweep_copy) == before
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize(
    ("ask", "kind", "said"),
    [
        (lambda s: s.attribution("tracinn"), StoreError, "did you mean tracin"),
        (lambda s: s.top(0, "tracinn"), StoreError, "did you mean tracin"),
        (lambda s: s.runs("fitt"), StoreError, "did you mean fit"),
        (lambda s: s.top(8, "tracin"), ConfigError, "query 8 is out of range"),
        (lambda s: s.top(-1, "tracin"), ConfigError, "query -1 is out of range"),
        (lambda s: s.top(1.5, "tracin"), ConfigError, "query 1.5: expected a whole number"),  # type: ignore[arg-type]
        (lambda s: s.top(0, "tracin", k=-1), ConfigError, "k -1: expected how many"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(
    opened: orchestrator.OpenedSweep,
    ask: Callable[[orchestrator.OpenedSweep], object],
    kind: type[UserError],
    said: str,
) -> None:
    with pytest.raises(kind) as refused:
        ask(opened)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_no_sweep_is_refused(tmp_path: Path, sweep_copy: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(StoreError, match="is not a sweep"):
            orchestrator.open_sweep(folder)
    assert not (tmp_path / "nowhere").exists()
    shutil.rmtree(sweep_copy / "runs.zarr")
    with pytest.raises(StoreError, match="holds no runs"):
        orchestrator.open_sweep(sweep_copy)


def test_a_newer_format_and_a_damaged_store_are_refused(sweep_copy: Path) -> None:
    metadata = sweep_copy / "runs.zarr" / "zarr.json"
    kept = json.loads(metadata.read_text())
    kept["attributes"]["format_version"] = 99
    metadata.write_text(json.dumps(kept))
    with pytest.raises(StoreError, match="has format version 99"):
        orchestrator.open_sweep(sweep_copy)
    metadata.write_text("{")
    with pytest.raises(StoreError, match=r"zarr\.json is damaged"):
        orchestrator.open_sweep(sweep_copy)
    (sweep_copy / "config.yaml").write_text("designs: [")
    with pytest.raises(UserError, match="is not YAML"):
        orchestrator.open_sweep(sweep_copy)


def test_labels_that_make_no_sense_are_refused(sweep_copy: Path) -> None:
    (sweep_copy / "examples.parquet").write_bytes(b"no table")
    with pytest.raises(StoreError, match=r"examples\.parquet is damaged .*: delete it, and `counterfactory retrain"):
        orchestrator.open_sweep(sweep_copy).top(0, "tracin")
    (sweep_copy / "examples.parquet").unlink()
    assert orchestrator.open_sweep(sweep_copy).top(0, "tracin")["label"].isna().all()


def test_importing_it_costs_nothing(finished_sweep: Path) -> None:
    """A fresh process opens a sweep without the libraries that only training and attributing need."""
    program = (
        "import sys, orchestrator\n"
        "assert not {'numpy', 'pandas', 'torch'} & set(sys.modules)\n"
        f"sweep = orchestrator.open_sweep({str(finished_sweep)!r})\n"
        "sweep.scores(), sweep.runs('fit')['margin'].load(), sweep.attribution('tracin'), sweep.status(), repr(sweep)\n"
        "print(sorted({'torch', 'ray', 'numba', 'sklearn'} & set(sys.modules)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]"
