"""A worker process holds what one pool brought, and lets go of it when another's work arrives."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.execution.pool import Work
from orchestrator.execution.serving import Served, Serving
from workers.loading import TaskSpec
from workers.runs import Queries, Run

TASK = """
from workers.data.tables import table


class Sum:
    n, t = 3, 1

    def __init__(self, path):
        self.x = table(path)["x"]

    def train(self, subset, seed):
        return self.x[subset].sum()

    def measure(self, model):
        return {"sum": [model]}
"""
Fetch = Callable[[], Work]


@pytest.fixture
def held() -> Iterator[Serving]:
    """What a worker process holds."""
    yield Serving()
    gc.unfreeze()


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Fetch]:
    """Return what brings a pool's work, with data of `scale` that no file holds."""
    (tmp_path / "task.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)

    def of(scale: int) -> Fetch:
        path = tmp_path / "absent.csv"
        spec = TaskSpec("task.py:Sum", {"path": str(path)}, str(tmp_path))
        data = {f"table:{path}": {"x": scale * np.arange(3)}}
        return lambda: Work(spec, ("sum",), Queries(), "cpu", 1, data=data)

    return of


def total(served: Served) -> list[float]:
    """Return what the served task makes of examples 1 and 2."""
    (outcome,) = served.trainer.train([Run(0, np.array([1, 2]), 0)], served.work.measures, served.work.queries)
    found: list[float] = outcome.outputs["sum"].tolist()
    return found


def refused() -> Work:
    raise AssertionError("fetched twice")


def test_a_pool_s_work_is_fetched_and_its_task_built_once(held: Serving, fetch: Callable[[int], Fetch]) -> None:
    first = held.pool("one", fetch(1))
    assert held.pool("one", refused) is first
    assert first.trainer is first.trainer
    assert total(first) == [3], "from the data that came along: there is no file"


def test_another_pool_s_work_takes_the_place_of_the_last(held: Serving, fetch: Callable[[int], Fetch]) -> None:
    first = held.pool("one", fetch(1))
    assert total(first) == [3]
    second = held.pool("two", fetch(2))
    assert second is not first
    assert total(second) == [6], "the same file, as this pool's driver found it"
    assert held.pool("one", fetch(1)) is not first, "one pool at a time is held"


def test_work_that_could_not_be_fetched_is_asked_for_again(held: Serving, fetch: Callable[[int], Fetch]) -> None:
    with pytest.raises(AssertionError, match="fetched twice"):
        held.pool("one", refused)
    assert held.pool("one", fetch(1)).key == "one"
