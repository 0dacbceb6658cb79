"""Running, planning and judging from Python: the same as the commands of those names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import orchestrator
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from workers.errors import DataError

TIMES = ["train_seconds", "attribute_seconds"]


def test_a_run_gives_the_sweep_that_the_command_gives(
    tiny: dict[str, Any], finished_sweep: Path, tmp_path: Path, ray_started: None, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = orchestrator.run(tiny, out=tmp_path / "sweep")
    assert sweep.status().pending == 0
    assert "42 runs to train" in capsys.readouterr().err
    with RunStore.open(SweepPaths(finished_sweep)) as theirs, RunStore.open(SweepPaths(tmp_path / "sweep")) as ours:
        for design in ours.designs:
            np.testing.assert_array_equal(ours.outputs(design, "margin"), theirs.outputs(design, "margin"))
    pd.testing.assert_frame_equal(
        pd.DataFrame(sweep.scores()).drop(columns=TIMES),
        pd.DataFrame(orchestrator.open_sweep(finished_sweep).scores()).drop(columns=TIMES),
    )


def test_a_plan_trains_a_little_and_writes_nothing(tiny: dict[str, Any], tmp_path: Path) -> None:
    planned = orchestrator.plan(tiny, out=tmp_path / "sweep")
    assert planned.designs.set_index("design").loc["fit", "runs"] == 20
    assert planned.forecast.seconds > 0
    assert "heldout" in planned._repr_html_()
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_that_was_run_without_a_forecast_is_forecast_when_asked(
    tiny: dict[str, Any], finished_sweep: Path
) -> None:
    unsized = {key: value for key, value in tiny.items() if key != "pack"}
    assert orchestrator.plan(unsized, out=finished_sweep).forecast.seconds > 0


def test_anybodys_array_is_judged(finished_sweep: Path, tmp_path: Path) -> None:
    tau = np.asarray(orchestrator.open_sweep(finished_sweep).attribution("difference_in_means"))
    judged = orchestrator.score(finished_sweep, tau, name="theirs")
    kept = orchestrator.open_sweep(finished_sweep).scores()
    own = kept[(kept["estimator"] == "difference_in_means") & (kept["metric"] == "lds")].iloc[0]
    row = judged[judged["metric"] == "lds"].iloc[0]
    assert row["estimator"] == "theirs"
    assert row["value"] == own["value"]
    np.save(tmp_path / "saved.npy", tau)
    assert orchestrator.score(finished_sweep, tmp_path / "saved.npy").iloc[0]["estimator"] == "saved"
    with pytest.raises(DataError, match="looks transposed"):
        orchestrator.score(finished_sweep, tau.T)
