"""A sweep of a task that trains itself, and one of a task on dictionaries from a data set: from retraining to the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import orchestrator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-own-task.md"
FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL))
DATA_SET = """
import torch
from torch import nn
from workers import Classification, Recipe

class Rows:
    def __init__(self, first, count):
        self.first, self.count = first, count
        x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        self.x, self.y = x, (x[:, 0] > 0).long()
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        return {"x": self.x[self.first + index]}, self.y[self.first + index]

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    def forward(self, x):
        return self.layers(nn.functional.dropout(x, 0.1, self.training))

class Mine(Classification):
    def __init__(self):
        self.recipe = Recipe(lr=0.1, batch_size=10, epochs=3)
        self.train_data, self.query_data = Rows(0, 50), Rows(50, 10)
    def module(self):
        return Words()
    def label(self, source, index):
        return str(int(self.train_data.y[index + 50 * (source == "task")]))
"""


def configuration(task: str, measure: str, **arguments: object) -> dict[str, Any]:
    return {
        "name": "own",
        "task": {"name": task, "arguments": arguments},
        "measures": [measure],
        "pack": 4,
        "designs": {
            "reference": {"kind": "full", "seeds": 2, "checkpoints": [1, 3]},
            "fit": {"kind": "subsets", "alpha": 0.5, "subsets": 20},
            "heldout": {"kind": "subsets", "alpha": 0.5, "subsets": 8, "seeds": 2, "purpose": "score"},
        },
        "estimators": {
            "tracin": {}, "influence": {}, "similarity": {}, "difference_in_means": {},
            "head": {"estimator": "tracin", "parameters": ["*.3.*" if task.startswith("mine") else "2.*"]},
        },
        "scores": {"lds": {"resamples": 100}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "task", "arguments"), [("my_loop.py", "my_loop.py:Loop", {"epochs": 3}), ("mine.py", "mine.py:Mine", {})]
)
def test_the_whole_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_started: None, command: Any,
    file: str, task: str, arguments: dict[str, Any],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path(file).write_text(FILES.get(file, DATA_SET))
    sweep = orchestrator.run(configuration(task, "margin", **arguments), out="own")
    runs = sweep.runs("fit")
    assert runs.sizes["run"] == 20
    assert np.isfinite(runs["margin"].values).all()
    scores = sweep.scores()
    assert {"tracin", "influence", "similarity", "head", "difference_in_means"} <= set(scores["estimator"])
    assert np.isfinite(sweep.attribution("influence").values).all()
    assert not np.array_equal(sweep.attribution("head").values, sweep.attribution("tracin").values)
    checked = command("verify", "own", "--rerun", "3")
    assert checked.code == 0, checked.err
    assert Path("own/report.html").exists()


def test_changed_data_are_another_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any) -> None:
    """Neither is a tensor that the task holds: what a data set gives is looked at."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(DATA_SET)
    from orchestrator.sweeps.data_hash import data_hash
    from workers.loading import TaskSpec, build_task

    def hashed() -> str:
        return data_hash(build_task(TaskSpec("mine.py:Mine", {}, str(tmp_path))))

    first, again = hashed(), hashed()
    Path("mine.py").write_text(DATA_SET.replace("manual_seed(0)", "manual_seed(1)"))
    assert first == again != hashed()
