from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.retraining.strategy import work_of
from orchestrator.sweeps.sweep import Sweep
from workers import loading
from workers.errors import StoreError
from workers.loading import build_task

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every task that is built."""
    names: list[str] = []

    def noting(spec: Any, *arrays: Any) -> Any:
        names.append(spec.name)
        return build_task(spec, *arrays)

    monkeypatch.setattr(loading, "build_task", noting)
    return names


def test_sweeps_made_of_one_another_build_their_task_once_and_only_when_it_is_asked_for(
    make_sweep: Make, game: Raw, built: list[str]
) -> None:
    game["designs"] = {"fit": {"kind": "subsets", "subsets": 4}}
    sweep = make_sweep(game)
    packed, nested = sweep.with_pack(2), make_sweep(game).sharing_task_of(sweep)
    assert built == []
    assert nested.task is packed.task is sweep.task
    assert built == ["game.py:Game"]
    assert make_sweep(game).task is not sweep.task


def test_a_sweep_with_another_pack_has_plans_of_its_own(make_sweep: Make, game: Raw) -> None:
    game["designs"] = {"fit": {"kind": "subsets", "subsets": 4}}
    sweep = make_sweep(game)
    assert sweep.plans["fit"].pack == 4
    assert sweep.with_pack(2).plans["fit"].pack == 2


def test_a_sweep_reads_its_data_as_it_is_and_hands_no_other_s_to_the_workers(make_sweep: Make, tmp_path: Path) -> None:
    raw = {
        "name": "table",
        "task": {"name": "sklearn", "arguments": {"estimator": "sklearn.linear_model:Ridge", "path": "a.csv"}},
        "measures": ["prediction"],
        "designs": {"fit": {"kind": "subsets", "subsets": 4}},
    }
    other = raw | {"task": {"name": "tabular", "arguments": {"path": "b.csv"}}, "measures": ["prediction"]}
    write_table(tmp_path / "a.csv", power=1)
    write_table(tmp_path / "b.csv", power=1)
    first, second = make_sweep(other), make_sweep(other)
    hashed = first.data_hash()
    write_table(tmp_path / "b.csv", power=2)
    assert second.data_hash() != hashed, "the file was rewritten before this sweep looked at it"
    assert first.data_hash() == hashed, "a sweep keeps to what it read"
    assert list(second.data_sets) == [f"table:{tmp_path / 'b.csv'}"]
    assert list(work_of(make_sweep(raw)).data) == [f"table:{tmp_path / 'a.csv'}"]


def write_table(path: Path, power: int) -> None:
    path.write_text("a,b\n" + "\n".join(f"{i},{i**power}" for i in range(20)))


def test_a_file_in_the_folder_s_place_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("name: my\n")
    with pytest.raises(
        StoreError, match=r"^my.yaml: is a file, expected the folder of a sweep; `counterfactory run CONFIG`"
    ):
        Sweep.at(Path("my.yaml"))
    (tmp_path / "runs" / "my").mkdir(parents=True)
    (tmp_path / "runs" / "my" / "config.yaml").touch()
    with pytest.raises(StoreError, match=r"expected the folder of a sweep, such as runs/my; "):
        Sweep.at(Path("my.yaml"))
