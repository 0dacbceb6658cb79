"""A damaged file beside the runs is one line that names it and says what to do; what can be made anew is."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import orchestrator
from orchestrator.applications.removal_curves import nested_sweeps, read_removals
from orchestrator.attribution.early_stopping import Stopper
from orchestrator.attribution.workspace import SweepWorkspace
from orchestrator.config.schema import RaySection
from orchestrator.forecast.cost import DesignForecast, Forecast, keep_forecast, read_forecast
from orchestrator.scoring.table import read_scores
from orchestrator.stages.plan import prepare
from orchestrator.store.lease import Lease, holder
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.stopping_record import read_stopping
from orchestrator.sweeps.strategy_record import read_strategy
from orchestrator.sweeps.sweep import Sweep
from workers.errors import LeaseError, StoreError

Harm = Callable[[Path], None]
Command = Callable[..., Any]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    path.write_bytes(b"\x80\x1b[31m\xff\n\0" * 9)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put(text: str) -> Harm:
    def harm(path: Path) -> None:
        path.write_text(text)

    harm.__name__ = text
    return harm


EVERY: list[Harm] = [truncate, garble, empty, folder]
OF_JSON = [*EVERY, *map(put, ("3", "null", "{}", '"text"', '[{"design": 3}]', '{"path": "fast", "width": "x"}'))]
FORECAST = Forecast((DesignForecast("fit", 20, 1.0, 0.1),), 2, 1.0, 0.5, 2.0, 1000, 0)


def named(harm: Harm) -> str:
    return harm.__name__


@pytest.fixture
def sweep(sweep_copy: Path) -> Path:
    """A finished sweep with every side file."""
    record = [
        {"design": "fit", "criterion": "runs > 1", "looks": [{"runs": 2, "values": {"runs > 1": 2.0}, "met": False}]}
    ]
    (sweep_copy / "stopping.json").write_text(json.dumps(record))
    keep_forecast(Sweep.at(sweep_copy), FORECAST)
    return sweep_copy


def check(ended: Any, path: Path, remedy: str) -> None:
    """Hold a command that met a damaged file to one last line that names it and what to do."""
    last = ended.err.splitlines()[-1]
    assert ended.code == 2, ended
    assert last.startswith(f"error: {path} ")
    assert remedy in last
    assert "Traceback" not in ended.err
    assert last.isprintable()


def test_whole_files_are_read(sweep: Path) -> None:
    opened = Sweep.at(sweep)
    assert read_stopping(opened)["fit"].looks[0].values == {"runs > 1": 2.0}
    assert read_forecast(opened) == FORECAST
    strategy = read_strategy(opened)
    assert strategy is not None
    assert strategy.to_json() == json.loads((sweep / "calibration.json").read_text())
    assert len(read_scores(sweep / "scores.parquet")) > 3


@pytest.mark.parametrize("name", ["status", "verify", "report", "retrain"])
@pytest.mark.parametrize("harm", OF_JSON, ids=named)
def test_a_damaged_record_of_stopping(harm: Harm, name: str, sweep: Path, command: Command) -> None:
    path = sweep / "stopping.json"
    harm(path)
    check(command(name, sweep), path, "delete it, and the criteria are evaluated anew, on what is there")
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert command(name, sweep).code == 0


@pytest.mark.parametrize("harm", OF_JSON, ids=named)
def test_a_damaged_record_of_stopping_stops_the_stopper(
    harm: Harm, sweep: Path, tiny: dict[str, Any], make_sweep: Callable[[dict[str, Any]], Sweep]
) -> None:
    tiny["stop"] = {"fit": {"when": "runs > 3", "every": 1}}
    made = make_sweep(tiny)
    shutil.copytree(sweep, made.paths.root)
    harm(made.paths.stopping)
    with RunStore.open(made.paths) as store, pytest.raises(StoreError, match="delete it"):
        Stopper(made, store)


@pytest.mark.parametrize("harm", OF_JSON, ids=named)
def test_a_damaged_forecast(harm: Harm, sweep: Path, command: Command) -> None:
    path, before = sweep / "forecast.json", (sweep / "report.html").read_bytes()
    harm(path)
    check(command("report", sweep), path, "delete it, and the report compares what happened with no forecast")
    assert (sweep / "report.html").read_bytes() == before
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert command("report", sweep).code == 0


@pytest.mark.parametrize("harm", OF_JSON, ids=named)
def test_a_damaged_calibration(harm: Harm, sweep: Path, command: Command, ray_started: None) -> None:
    path = sweep / "calibration.json"
    harm(path)
    with RunStore.open(SweepPaths(sweep), write=True) as store:
        store.forget("fit", [3])
    check(command("retrain", sweep), path, "delete it, and the way to train is chosen anew, by measurement")
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert command("retrain", sweep).code == 0
    assert json.loads(path.read_text())["path"] in ("resident", "stacked", "alone")


def other_columns(path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(path)


def words_for_numbers(path: Path) -> None:
    pd.read_parquet(path).assign(value="many").to_parquet(path)


@pytest.mark.parametrize("harm", [*EVERY, other_columns, words_for_numbers], ids=named)
def test_a_damaged_table_of_scores(harm: Harm, sweep: Path, command: Command) -> None:
    path = sweep / "scores.parquet"
    harm(path)
    check(command("report", sweep), path, "delete it, and `counterfactory score` writes it anew")
    with pytest.raises(StoreError, match=r"scores\.parquet .*delete it"):
        orchestrator.open_sweep(sweep).scores()
    ended = command("score", sweep)
    assert (ended.code == 0) == (harm is not folder), "what lies there is not looked at: the table is written anew"
    assert "Traceback" not in ended.err
    if harm is not folder:
        assert command("report", sweep).code == 0


@pytest.mark.parametrize("harm", OF_JSON, ids=named)
def test_a_damaged_lease_that_nobody_holds(harm: Harm, sweep: Path, command: Command) -> None:
    path = sweep / "lease"
    harm(path)
    assert command("status", sweep).code == 0
    ended = command("attribute", sweep)
    if harm is folder:
        check(ended, path, "is a folder: remove it")
        assert path.is_dir()
    else:
        assert ended.code == 0
        assert json.loads(path.read_text())["pid"]


@pytest.mark.parametrize(
    "harm", [put('{"pid": 17, "ho'), *(one for one in OF_JSON[1:] if one is not folder)], ids=named
)
def test_a_damaged_lease_that_somebody_holds(harm: Harm, sweep: Path, command: Command) -> None:
    paths = SweepPaths(sweep)
    program = f"""
from pathlib import Path
from orchestrator.store.lease import Lease
from orchestrator.store.paths import SweepPaths
lease = Lease(SweepPaths(Path({str(sweep)!r})))
print("held", flush=True)
input()
"""
    root = Path(__file__).parents[3]
    held = subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with held:
        assert held.stdout is not None
        assert held.stdin is not None
        assert held.stdout.readline() == "held\n"
        harm(paths.lease)
        found = holder(paths)
        assert found is not None
        assert found["pid"] == found["host"] == "(unknown)"
        with pytest.raises(LeaseError, match=r"is being written by process \(unknown\)") as caught:
            Lease(paths)
        assert "\n" not in str(caught.value)
        shown = command("status", sweep)
        assert (shown.code, "running: process (unknown)" in shown.out) == (0, True)
        held.stdin.write("\n")


@pytest.mark.parametrize("harm", [truncate, garble, empty], ids=named)
def test_a_damaged_piece_is_computed_anew_and_that_is_said(harm: Harm, tmp_path: Path) -> None:
    said: list[str] = []
    workspace = SweepWorkspace(SweepPaths(tmp_path), "datamodel", "stamp", RaySection(), said.append)
    workspace.keep("00", {"a": np.arange(40.0)})
    found = workspace.kept("00")
    assert found is not None
    assert found["a"].tolist() == list(range(40))
    (path,) = (tmp_path / "pieces").rglob("a.npy")
    harm(path)
    assert workspace.kept("00") is None
    assert said == [f"{path.parent} is damaged: it is computed anew"]


@pytest.mark.parametrize("harm", [truncate, garble, empty, folder], ids=named)
def test_a_damaged_configuration_of_a_removal_curve_is_refused_and_not_passed_over(
    harm: Harm, tiny: dict[str, Any], sweep: Path, make_sweep: Callable[[dict[str, Any]], Sweep]
) -> None:
    tiny["scores"]["removal"] = {"estimators": ["difference_in_means"], "fractions": [0, 0.5], "seeds": 2}
    made = make_sweep(tiny)
    shutil.copytree(sweep, made.paths.root)
    (nested,) = (one for one in nested_sweeps(made) if one.paths.root.name == "difference_in_means")
    prepare(nested).close()
    harm(nested.paths.config)
    with pytest.raises((StoreError, ValueError), match="removal/difference_in_means") as caught:
        read_removals(made)
    assert "\n" not in str(caught.value)
