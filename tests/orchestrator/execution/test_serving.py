"""A worker process holds what one pool brought, and lets go of it when another's work arrives."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.execution import serving
from orchestrator.execution.pool import Work
from orchestrator.execution.serving import Serving
from workers.data.shared import Arrays, SharedArrays
from workers.loading import TaskSpec
from workers.runs import Queries, Run

TASK = """
class Sum:
    n, t = 3, 1

    def __init__(self, key):
        self.key = key

    def train(self, subset, seed):
        return subset.sum()

    def measure(self, model):
        return {"sum": [model]}
"""
Fetch = Callable[[], tuple[Work, dict[str, Arrays]]]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedArrays]:
    """Arrays of this test's own, in place of the process's."""
    own = SharedArrays()
    monkeypatch.setattr(serving, "SHARED", own)
    yield own
    gc.unfreeze()


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Fetch]:
    """Return what brings a pool's work and its data."""
    (tmp_path / "task.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)

    def of(key: str) -> Fetch:
        work = Work(TaskSpec("task.py:Sum", {"key": key}, str(tmp_path)), ("sum",), Queries(), "cpu", 1)
        return lambda: (work, {key: {"x": np.arange(3)}})

    return of


def refused() -> tuple[Work, dict[str, Arrays]]:
    raise AssertionError("fetched twice")


def test_a_pool_s_work_is_fetched_and_its_task_built_once(shared: SharedArrays, fetch: Callable[[str], Fetch]) -> None:
    held = Serving()
    first = held.pool("one", fetch("one"))
    assert held.pool("one", refused) is first
    assert first.trainer is first.trainer
    (outcome,) = first.trainer.train([Run(0, np.array([1, 2]), 0)], first.work.measures, first.work.queries)
    assert outcome.outputs["sum"].tolist() == [3]
    assert list(shared.loaded()) == ["one"]


def test_another_pool_s_work_takes_the_place_of_the_last(shared: SharedArrays, fetch: Callable[[str], Fetch]) -> None:
    held = Serving()
    first = held.pool("one", fetch("one"))
    second = held.pool("two", fetch("two"))
    assert second is not first
    assert second.work.spec.arguments == {"key": "two"}
    assert list(shared.loaded()) == ["two"]
    assert held.pool("one", fetch("one")) is not first, "one pool at a time is held"


def test_work_that_could_not_be_fetched_is_asked_for_again(shared: SharedArrays, fetch: Callable[[str], Fetch]) -> None:
    held = Serving()
    with pytest.raises(AssertionError, match="fetched twice"):
        held.pool("one", refused)
    assert held.pool("one", fetch("one")).key == "one"
