"""Sweeps of the tasks with BatchNorm and dropout in attention: killed and continued, and trained again in another process."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from orchestrator.config.loading import load
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from tests.orchestrator.conftest import Command, InlinePool
from tests.resilience.conftest import differences
from tests.resilience.dying import dying_driver

CHECKOUT = Path(__file__).resolve().parents[2]
DIES_AT, PACKS = 4, 7
"""The driver is killed as it is about to record its fourth pack of seven."""
TRANSFORMER = {"n": 24, "t": 6, "width": 8, "heads": 2, "layers": 1, "length": 6, "vocabulary": 270}
RESNET = {"n": 24, "t": 6, "width": 4, "norm": "batch"}
TASKS: dict[str, dict[str, Any]] = {
    "text": {"path": "reviews.tsv", "text": "text", "target": "mood", **TRANSFORMER},
    "language_model": {"path": "play.txt", "dropout": 0.1, "attention_dropout": 0.1, **TRANSFORMER},
    "cifar2": {"path": "images.npz", **RESNET},
    "cifar10": {"path": "images.npz", **RESNET},
}


def write_data(folder: Path) -> None:
    """Write 40 reviews, 40 speeches, and 200 images of which 40 are cats and dogs."""
    words = random.Random(0)
    texts = [" ".join(words.choices(["good", "bad", "a", "film", "of", "ghosts"], k=6)) for _ in range(40)]
    (folder / "reviews.tsv").write_text(
        "text\tmood\n" + "".join(f"{text}\t{('good', 'bad')[row % 2]}\n" for row, text in enumerate(texts))
    )
    (folder / "play.txt").write_text("\n\n".join(texts))
    images = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", x=images, y=np.arange(200) % 10)


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    """Write the configuration of a small sweep of a task, and its data."""

    def write(task: str) -> Path:
        write_data(tmp_path)
        measures = ["loss", "margin"] if task == "language_model" else ["margin", "correct"]
        sections = {
            "task": {"name": task, "arguments": {**TASKS[task], "recipe": {"epochs": 2, "batch_size": 5}}},
            "measures": measures,
            "pack": 4,
            "designs": {
                "reference": {"kind": "full", "seeds": 2, "checkpoints": [1]},
                "fit": {"kind": "subsets", "subsets": 14},
                "heldout": {"kind": "subsets", "subsets": 4, "seeds": 2, "purpose": "score"},
            },
            "ray": {"workers": 1},
        }
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sections))
        return tmp_path / "sweep.yaml"

    return write


def killed(config: Path, out: Path) -> None:
    """Run the sweep in a process that is killed in the midst of its packs."""
    script = config.with_name("dying.py")
    script.write_text(dying_driver("ledger", "Ledger.write", DIES_AT))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    ended = subprocess.run(
        [sys.executable, str(script), "run", str(config), "--out", str(out)],
        env=environment, cwd=config.parent, capture_output=True, text=True, timeout=180, start_new_session=True,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert sum(path.stem.isdecimal() for path in out.glob("ledger/*/*.json")) == DIES_AT - 1


def trained_here(config: Path, out: Path, like: SweepPaths) -> None:
    """Train the whole sweep in this process, from beginning to end, in the way that another sweep of it chose."""
    sweep = Sweep.of(load(str(config), ()), out)
    with prepare(sweep) as store:
        shutil.copy(like.calibration, sweep.paths.calibration)
        assert retrain(sweep, store, pool=InlinePool(sweep)).done == 24


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_same_bits_after_a_kill_and_in_another_process(
    task: str, config: Callable[[str], Path], tmp_path: Path, ray_started: None, command: Command
) -> None:
    asked, once, twice = config(task), tmp_path / "once", tmp_path / "twice"
    killed(asked, twice)
    goes_on = command("run", asked, "--out", twice)
    assert goes_on.code == 0, goes_on.err
    assert "24 of 24 are done" in goes_on.err

    trained_here(asked, once, SweepPaths(twice))
    with RunStore.open(SweepPaths(once)) as mine, RunStore.open(SweepPaths(twice)) as theirs:
        assert not list(differences(mine, theirs))
    again = command("verify", once, "--rerun", 3)
    assert again.code == 0, again.out
    assert again.out.count("equal, bit by bit") == 3
