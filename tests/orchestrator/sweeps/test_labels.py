"""Labels are kept with the sweep, so that nobody who looks at it needs the task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.stages.plan import prepare
from orchestrator.sweeps.labels import keep_labels, read_labels
from orchestrator.sweeps.sweep import Sweep
from workers.errors import TaskError

MakeSweep = Callable[[dict[str, Any]], Sweep]


def test_they_are_the_tasks_own(tiny: dict[str, Any], make_sweep: MakeSweep) -> None:
    sweep = make_sweep(tiny)
    prepare(sweep).close()
    labels = read_labels(sweep.paths)
    assert len(labels) == sweep.task.n + sweep.task.t
    assert labels["train", 7] == sweep.task.label("train", 7)  # type: ignore[union-attr]
    assert labels["task", 3] == sweep.task.label("task", 3)  # type: ignore[union-attr]
    assert list(pd.read_parquet(sweep.paths.labels).columns) == ["source", "index", "label"]


def test_a_task_without_labels_has_none(game: dict[str, Any], make_sweep: MakeSweep) -> None:
    sweep = make_sweep({**game, "designs": {"fit": {"kind": "subsets", "subsets": 4}}})
    prepare(sweep).close()
    assert not sweep.paths.labels.exists()
    assert read_labels(sweep.paths) == {}


def test_a_label_that_fails_is_one_line(
    tiny: dict[str, Any], make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(tiny)
    tmp_path.joinpath("sweep").mkdir()

    def broken(source: str, index: int) -> str:
        raise KeyError(index)

    monkeypatch.setattr(sweep.task, "label", broken, raising=False)
    with pytest.raises(TaskError, match=r"label\('train', 0\) failed: KeyError"):
        keep_labels(sweep)
