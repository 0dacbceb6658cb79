"""Scores of an attribution that changed, or is gone, are said to be stale wherever they are shown."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import orchestrator
from orchestrator.scoring.stale import CHANGED, GONE, stale_scores
from orchestrator.store.attributions import read_attribution, remove_attribution, write_attribution
from orchestrator.store.paths import SweepPaths
from orchestrator.sweeps.sweep import Sweep

LABEL = "difference_in_means"


def change(folder: Path) -> None:
    paths = SweepPaths(folder)
    kept = read_attribution(paths, LABEL)
    write_attribution(paths, LABEL, replace(kept, values=-kept.values))


def gone(folder: Path) -> None:
    remove_attribution(SweepPaths(folder), LABEL)


def without_the_column(folder: Path) -> None:
    path = SweepPaths(folder).scores
    pd.read_parquet(path).drop(columns="attribution").to_parquet(path)


def test_scores_of_what_is_there_stand(sweep_copy: Path) -> None:
    assert stale_scores(Sweep.at(sweep_copy)) == {}
    kept = read_attribution(SweepPaths(sweep_copy), LABEL)
    write_attribution(SweepPaths(sweep_copy), LABEL, kept)
    assert stale_scores(Sweep.at(sweep_copy)) == {}, "the same values have the same scores"
    table = orchestrator.open_sweep(sweep_copy).scores()
    assert set(table.loc[table["estimator"] == LABEL, "attribution"]) == {kept.content_hash}
    assert set(table.loc[table["estimator"] == "retraining", "attribution"]) <= {""}


@pytest.mark.parametrize(("harm", "why"), [(change, CHANGED), (gone, GONE)])
def test_scores_of_another_attribution_are_stale_wherever_they_are_shown(
    sweep_copy: Path, command: Callable[..., object], harm: Callable[[Path], None], why: str
) -> None:
    harm(sweep_copy)
    assert json.loads(command("status", sweep_copy, "--json").out)["stale_scores"] == {LABEL: why}  # type: ignore[attr-defined]
    said = " ".join(command("status", sweep_copy).out.split())  # type: ignore[attr-defined]
    assert f"stale scores: {LABEL}, {why}; `counterfactory score DIR` takes them anew" in said
    opened = orchestrator.open_sweep(sweep_copy)
    assert opened.scores().attrs["stale"] == opened.status().stale_scores == {LABEL: why}
    sentence = f"The scores of {LABEL} are stale: {why}."
    assert sentence in opened.scores()._repr_html_()
    assert sentence in opened._repr_html_()
    command("report", sweep_copy)
    assert sentence in SweepPaths(sweep_copy).report.read_text(encoding="utf-8")
    command("score", sweep_copy)
    assert stale_scores(Sweep.at(sweep_copy)) == {}


def test_of_scores_that_name_no_attribution_it_is_known_whether_there_is_one(sweep_copy: Path) -> None:
    without_the_column(sweep_copy)
    change(sweep_copy)
    assert stale_scores(Sweep.at(sweep_copy)) == {}
    gone(sweep_copy)
    assert stale_scores(Sweep.at(sweep_copy)) == {LABEL: GONE}


def test_a_table_that_makes_no_sense_is_damage_to_status(sweep_copy: Path, command: Callable[..., object]) -> None:
    path = SweepPaths(sweep_copy).scores
    path.write_bytes(b"half")
    said = json.loads(command("status", sweep_copy, "--json").out)  # type: ignore[attr-defined]
    assert said["stale_scores"] == {}
    assert len(said["damages"]) == 1
    assert f"{path} is damaged" in said["damages"][0]
