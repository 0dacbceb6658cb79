from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.sweeps.sweep import Sweep
from workers import loading
from workers.loading import build_task

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every task that is built."""
    names: list[str] = []

    def noting(spec: Any) -> Any:
        names.append(spec.name)
        return build_task(spec)

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
