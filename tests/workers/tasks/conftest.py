"""Small files for the built-in tasks to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from workers import Outcome, Queries, Run
from workers.loading import TaskSpec, build_task
from workers.packs import train_pack
from workers.task_hooks import measures_of


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Any]:
    """Build a task by its configured name, with paths relative to the test's folder."""
    return lambda name, **arguments: build_task(TaskSpec(name, arguments, str(tmp_path)))


@pytest.fixture
def outcome() -> Callable[[Any], Outcome]:
    """Train one run on every second example and return its outcome, which must not be a failure."""

    def train(task: Any, source: str = "task") -> Outcome:
        run = Run(0, np.arange(0, task.n, 2, dtype=np.int64), seed=4)
        (result,) = train_pack(task, [run], measures_of(task) or (), Queries(source), method="alone")
        assert result.failure is None, result.failure.traceback
        return result

    return train


@pytest.fixture
def mnist_file(tmp_path: Path) -> str:
    """60 noisy images of a bright row whose height is the class."""
    rng = np.random.default_rng(0)
    y = np.arange(60, dtype=np.uint8) % 10
    x = rng.integers(0, 60, (60, 28, 28), dtype=np.uint8)
    x[np.arange(60)[:, None], 2 * y[:, None] + np.arange(3)] = 250
    np.savez(tmp_path / "mnist.npz", x=x, y=y)
    return "mnist.npz"


@pytest.fixture
def cifar_file(tmp_path: Path) -> str:
    """30 training and 10 test images of random colours, sorted by class."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), np.repeat(np.arange(10), 4)
    np.savez(tmp_path / "cifar.npz", x=x[:30], y=y[:30], x_test=x[30:], y_test=y[30:])
    return "cifar.npz"


@pytest.fixture
def table_file(tmp_path: Path) -> str:
    """120 rows: two numbers, a category, a group and two targets that depend on all but the group."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"width": rng.normal(50, 9, 120), "age": rng.integers(1, 90, 120)})
    frame["colour"] = rng.choice(["red", "green", "blue"], 120)
    frame["who"] = np.arange(120) // 10
    frame["price"] = 3 * frame["width"] + frame["age"] + 20 * (frame["colour"] == "red")
    frame["kind"] = np.where(frame["price"] > frame["price"].median(), "dear", "cheap")
    frame.to_csv(tmp_path / "table.csv", index=False)
    return "table.csv"
