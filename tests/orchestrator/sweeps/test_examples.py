"""What a task tells is kept with the sweep, so that nobody who looks at it needs the task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.stages.plan import prepare
from orchestrator.sweeps import examples
from orchestrator.sweeps.examples import Examples, keep_examples
from orchestrator.sweeps.sweep import Sweep, empty_outputs
from orchestrator.sweeps.task_record import keep_record, read_record
from workers.errors import StoreError, TaskError
from workers.task_hooks import description_of

MakeSweep = Callable[[dict[str, Any]], Sweep]
TELLING = """
import numpy as np
class Box:
    n, t = 5, 3
    flipped = np.array([False, True, False, False, True])
    def train(self, subset, seed): return len(subset)
    def measure(self, model): return {"size": np.full(3, 1.0 * model)}
    def show(self, source, index): return SHOWN
    def measure_empty(self): return {"size": np.array([0.1, 1 / 3, np.nan])}
"""


@pytest.fixture
def telling(make_sweep: MakeSweep, tmp_path: Path) -> Callable[[str], Sweep]:
    """Make a sweep of a black box that shows the given expression."""

    def make(shown: str) -> Sweep:
        (tmp_path / "box.py").write_text(TELLING.replace("SHOWN", shown))
        designs = {"fit": {"kind": "subsets", "subsets": 4}}
        return make_sweep({"task": {"name": "box.py:Box"}, "measures": ["size"], "designs": designs, "pack": 4})

    return make


def test_they_are_the_tasks_own(tiny: dict[str, Any], make_sweep: MakeSweep) -> None:
    tiny["task"]["arguments"]["flip_labels"] = 0.2
    sweep = make_sweep(tiny)
    prepare(sweep).close()
    task: Any = sweep.task
    kept = read_record(sweep)
    assert (kept.description, kept.missing) == (description_of(task), "")
    assert kept.empty_outputs("margin") is None
    assert len(kept.examples.labels) == task.n + task.t
    assert kept.examples.label is not None
    assert kept.examples.show is not None
    for source, index in (("train", 7), ("train", 59), ("task", 3)):
        assert kept.examples.label(source, index) == task.label(source, index)
        np.testing.assert_array_equal(kept.examples.show(source, index), task.show(source, index))
    np.testing.assert_array_equal(kept.examples.mislabelled, task.flipped)  # type: ignore[arg-type]


def test_a_folder_reads_as_a_table(tiny: dict[str, Any], make_sweep: MakeSweep) -> None:
    sweep = make_sweep(tiny)
    prepare(sweep).close()
    table = pd.read_parquet(sweep.paths.examples)
    assert list(table.columns) == [
        "source", "index", "label", "mislabelled", "text", "pixels", "height", "width", "channels",
    ]  # fmt: skip
    row = table[(table.source == "task") & (table["index"] == 2)].iloc[0]
    pixels = np.frombuffer(row.pixels, np.uint8).reshape(int(row.height), int(row.width))
    np.testing.assert_array_equal(pixels, sweep.task.show("task", 2))  # type: ignore[union-attr]


def test_a_task_that_tells_nothing_has_no_examples(game: dict[str, Any], make_sweep: MakeSweep) -> None:
    sweep = make_sweep({**game, "designs": {"fit": {"kind": "subsets", "subsets": 4}}})
    prepare(sweep).close()
    kept = read_record(sweep)
    assert not sweep.paths.examples.exists()
    assert (kept.missing, kept.examples.labels) == ("", {})
    assert kept.examples.label is kept.examples.show is kept.examples.mislabelled is None
    np.testing.assert_array_equal(kept.empty_outputs("worth"), np.zeros(3, np.float32))  # type: ignore[arg-type]


def test_outputs_of_no_data_are_kept_to_the_last_bit(telling: Callable[[str], Sweep]) -> None:
    sweep = telling("'words'")
    prepare(sweep).close()
    kept, told = read_record(sweep).empty_outputs("size"), empty_outputs(sweep, "size")
    assert kept is not None
    assert told is not None
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, told)


def test_what_is_large_is_kept_smaller(telling: Callable[[str], Sweep], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "ROOM", 8 * 3 * 40**2)
    sweep = telling("(np.arange(80 * 100 * 3) % 251).astype(np.uint8).reshape(80, 100, 3)")
    prepare(sweep).close()
    show = read_record(sweep).examples.show
    assert show is not None
    picture = show("train", 0)
    assert not isinstance(picture, str)
    assert (picture.shape, picture.dtype) == ((32, 40, 3), np.uint8)
    sweep = telling("'x' * 100_000")
    keep_record(sweep, again=True)
    show = read_record(sweep).examples.show
    assert show is not None
    assert show("task", 2) == "x" * 4799 + "…"


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ("1 / 0", r"the task's show\('train', 0\) failed: ZeroDivisionError"),
        ("np.zeros((2, 2))", r"show\('train', 0\) is float64 \(2, 2\), expected a text, or uint8 of shape"),
        ("np.zeros((2, 2, 4), np.uint8)", r"show\('train', 0\) is uint8 \(2, 2, 4\), expected a text"),
    ],
)
def test_a_hook_that_fails_is_one_line(telling: Callable[[str], Sweep], shown: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        keep_examples(telling(shown))


def test_a_sweep_without_a_record_says_what_writes_one(telling: Callable[[str], Sweep]) -> None:
    sweep = telling("'words'")
    prepare(sweep).close()
    sweep.paths.task.unlink()
    sweep.paths.examples.unlink()
    record = sweep.paths.provenance.read_bytes()
    sweep.paths.provenance.unlink()
    assert f"`counterfactory retrain {sweep.paths.root} --accept-changes` writes them" in read_record(sweep).missing
    sweep.paths.provenance.write_bytes(record)
    missing = read_record(sweep).missing
    assert f"{sweep.paths.root}: keeps no task.json" in missing
    assert f"`counterfactory retrain {sweep.paths.root}` writes them, and runs the task's code" in missing
    prepare(sweep).close()
    assert read_record(sweep).missing == ""
    assert sweep.paths.examples.exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1}', json.dumps({"description": 3}).encode(), b"\xff"]
)
def test_a_damaged_record_is_refused(telling: Callable[[str], Sweep], content: bytes) -> None:
    sweep = telling("'words'")
    prepare(sweep).close()
    sweep.paths.task.write_bytes(content)
    with pytest.raises(
        StoreError, match=r"task\.json is damaged: delete it, and `counterfactory retrain .*` writes it anew$"
    ):
        read_record(sweep)


@pytest.mark.parametrize(
    "damage", [lambda whole: b"", lambda whole: b"no table", lambda whole: whole[: len(whole) // 2]]
)
def test_damaged_examples_are_refused(telling: Callable[[str], Sweep], damage: Callable[[bytes], bytes]) -> None:
    sweep = telling("'words'")
    prepare(sweep).close()
    path = sweep.paths.examples
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match=r"examples\.parquet is damaged .*: delete it, and `counterfactory retrain"):
        _ = Examples(path).labels
