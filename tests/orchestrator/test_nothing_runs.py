"""Who looks at a sweep runs nothing of it, whatever a stranger wrote into its configuration."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import orchestrator
from orchestrator.sweeps.request import requested

Tasks = Callable[[Path], dict[str, Any]]


def command_task(folder: Path) -> dict[str, Any]:
    return {"name": "os:system", "arguments": {"command": f"touch {folder / 'ran'}"}}


def file_task(folder: Path) -> dict[str, Any]:
    (folder / "theirs.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Bomb: ...\n")
    return {"name": f"{folder / 'theirs.py'}:Bomb", "arguments": {}}


def module_task(folder: Path) -> dict[str, Any]:
    return {"name": "antigravity:fly", "arguments": {}}


TASKS = (command_task, file_task, module_task)
FROM_RUNS = {"random": {"estimator": "random"}, "difference_in_means": {"estimator": "difference_in_means"}}


@pytest.fixture(params=TASKS)
def strange(
    sweep_copy: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, rewrite: Any
) -> Path:
    """A finished sweep whose configuration names somebody's code, with a hash to fit."""
    monkeypatch.setattr("webbrowser.open", lambda url: (tmp_path / "ran").touch())
    monkeypatch.delitem(__import__("sys").modules, "antigravity", raising=False)
    rewrite(sweep_copy, task=request.param(tmp_path), estimators=FROM_RUNS)
    return sweep_copy


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "DIR"),
        ("verify", "DIR"),
        ("report", "DIR"),
        ("score", "DIR"),
        ("score", "DIR", "--attributions", "DIR/mine.npy"),
        ("export", "DIR", "--to", "DIR/out.npz"),
        ("export", "DIR", "--to", "DIR/out.parquet"),
        ("attribute", "DIR"),
        ("attribute", "DIR", "--again"),
    ],
    ids=" ".join,
)
def test_no_command_that_looks(command: Any, strange: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    np.save(strange / "mine.npy", np.zeros((60, 8), np.float32) + np.arange(60)[:, None])
    ended = command(*(part.replace("DIR", str(strange)) for part in arguments))
    assert ended.code == 0, ended.err
    assert not (tmp_path / "ran").exists()


def test_no_call_in_python_that_looks(strange: Path, tmp_path: Path) -> None:
    sweep = orchestrator.open_sweep(strange)
    sweep.runs("fit").load()
    sweep.attribution("random")
    assert len(sweep.top(0, "difference_in_means"))
    sweep.scores()
    sweep.failures()
    sweep.status()
    sweep._repr_html_()
    orchestrator.score(strange, np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("arguments", [("retrain", "DIR"), ("verify", "DIR", "--rerun", "1")], ids=" ".join)
def test_a_command_is_refused_by_those_that_train(
    command: Any, sweep_copy: Path, tmp_path: Path, arguments: tuple[str, ...], rewrite: Any
) -> None:
    rewrite(sweep_copy, task=command_task(tmp_path), estimators=FROM_RUNS)
    ended = command(*(part.replace("DIR", str(sweep_copy)) for part in arguments))
    assert ended.code == 2
    assert "os:system: is a builtin_function_or_method, expected a class of tasks" in ended.err
    assert "was made elsewhere" in ended.err
    assert "about to run the code of module os" in ended.err
    assert not (tmp_path / "ran").exists()


def test_removal_curves_are_trained_by_retrain_and_not_by_score(
    command: Any, ray_started: None, tiny: dict[str, Any], tmp_path: Path, rewrite: Any
) -> None:
    folder = tmp_path / "sweep"
    tiny["folder"] = str(tmp_path)
    orchestrator.run(tiny, out=folder)
    removal = {"estimators": ["random"], "fractions": [0, 0.4], "seeds": 1, "order": ["best", "worst"]}
    rewrite(folder, scores={**requested(tiny, folder).config.resolved()["scores"], "removal": removal})
    said = f"removal curves of random are not trained: `counterfactory retrain {folder}` trains them"
    ended = command("score", folder)
    assert (ended.code, said in ended.err, "runs to train" in ended.err) == (0, True, False)
    ended = command("retrain", folder)
    assert (ended.code, "tiny-removal-random: 4 runs to train" in ended.err) == (0, True)
    ended = command("score", folder)
    assert (ended.code, "removal" in ended.err, "removal_best_area" in ended.out) == (0, False, True)


@pytest.mark.parametrize("arguments", [("score", "DIR"), ("report", "DIR"), ("attribute", "DIR")], ids=" ".join)
def test_a_sweep_that_keeps_no_record_opens_and_says_so(
    command: Any, sweep_copy: Path, arguments: tuple[str, ...]
) -> None:
    for name in ("task.json", "examples.parquet"):
        (sweep_copy / name).unlink()
    ended = command(*(part.replace("DIR", str(sweep_copy)) for part in arguments))
    assert ended.code == 0
    assert f"`counterfactory retrain {sweep_copy}` writes them, and runs the task's code for that" in ended.err
    with pytest.warns(UserWarning, match="keeps no task.json"):
        orchestrator.score(sweep_copy, np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
    assert command("retrain", sweep_copy).code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        orchestrator.score(sweep_copy, np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
