"""The page docs/your-own-task.md keeps its word: its files run as they stand."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from workers import Queries, Run
from workers.loading import TaskSpec, build_task
from workers.packs import train_pack
from workers.task_checks import check_measures

PAGE = Path(__file__).parents[2] / "docs" / "your-own-task.md"
FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for package in ("estimators", "orchestrator"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('a hostile package')")
    (tmp_path / "workers.py").write_text("raise RuntimeError('a hostile module')")
    return tmp_path


def test_both_levels_are_there_and_short():
    assert list(FILES) == ["my_task.py", "my_network.py"]
    assert all(text.count("\n") < 40 for text in FILES.values())


@pytest.mark.parametrize(
    ("name", "arguments", "measure"),
    [("my_task.py:Wine", {"C": 0.5}, "probability"), ("my_network.py:Spirals", {"hidden": 64}, "margin")],
)
def test_it_builds_and_trains(folder, name, arguments, measure):
    page = PAGE.read_text("utf-8")
    assert f"name: {name}" in page
    task = build_task(TaskSpec(name, arguments, str(folder)))
    check_measures(task, [measure, "correct"])
    run = Run(0, np.arange(0, task.n, dtype=np.int64), seed=1)
    (outcome,) = train_pack(task, [run], [measure, "correct"], Queries())
    assert outcome.failure is None
    assert outcome.outputs[measure].shape == (task.t,)
    assert outcome.outputs["correct"].mean() > 0.75
