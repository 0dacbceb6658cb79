"""The page docs/your-own-task.md keeps its word: its files run as they stand."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from estimators.baselines.similarity import Similarity
from estimators.evidence import Evidence, Reference
from estimators.gradient_based.influence import Influence
from estimators.gradient_based.tracin import TracIn
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


def test_all_levels_are_there_and_short():
    assert list(FILES) == ["my_task.py", "my_network.py", "my_loop.py", "my_lightning.py", "my_bert.py"]
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


@pytest.mark.parametrize(
    ("name", "arguments", "needs"),
    [
        ("my_loop.py:Loop", {"epochs": 3}, "torch"),
        ("my_lightning.py:WithLightning", {"epochs": 3}, "lightning"),
        ("my_bert.py:Bert", {}, "transformers"),
    ],
)
@pytest.mark.filterwarnings("ignore::Warning")  # of two libraries, about versions, devices and numbers of workers
def test_own_training_is_retrained_and_differentiated(folder, name, arguments, needs, monkeypatch):
    pytest.importorskip(needs, reason="python -m pip install 'counterfactory[test-models]'")
    monkeypatch.chdir(folder)
    task = build_task(TaskSpec(name, arguments, str(folder)))
    check_measures(task, ["loss"])
    epochs = (task.epochs,)
    runs = [Run(row, np.arange(task.n, dtype=np.int64), seed, epochs) for row, seed in enumerate((1, 1, 2))]
    first, again, other = train_pack(task, runs, ["loss"], Queries())
    assert [one.failure for one in (first, again, other)] == [None] * 3
    assert np.array_equal(first.outputs["loss"], again.outputs["loss"])
    assert not np.array_equal(first.outputs["loss"], other.outputs["loss"])
    references = (Reference(1, first.checkpoints),)
    evidence = Evidence(task.n, task.t, "loss", references=references, task=task)
    for estimator in (
        Influence(damping=0.1, max_iterations=5),
        Similarity(),
        *([TracIn()] if needs != "transformers" else []),
    ):
        estimator.check(evidence)
        values = estimator.attribute(evidence).values
        assert values.shape == (task.n, task.t)
        assert np.isfinite(values).all()
        assert values.std() > 0
