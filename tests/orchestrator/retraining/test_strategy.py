"""How packs are trained is kept with the sweep, with its reason, and read again when it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.retraining import strategy
from orchestrator.retraining.strategy import strategy_of
from orchestrator.stages.plan import prepare
from orchestrator.sweeps.strategy_record import read_strategy
from orchestrator.sweeps.sweep import Sweep
from workers.packed.strategy import Strategy

FAST = Strategy("resident", 1, False, "twice as fast")
LEFT = Strategy("alone", 1, False, "the short training failed: OSError: no space", failed=True)


@pytest.fixture
def sweep(tiny: dict[str, Any], make_sweep: Callable[[Any], Sweep]) -> Sweep:
    made = make_sweep(tiny)
    prepare(made).close()
    return made


def measured(monkeypatch: pytest.MonkeyPatch, found: Strategy | None) -> None:
    def calibrated(*_: object) -> Strategy:
        assert found is not None, "measured again"
        return found

    monkeypatch.setattr(strategy, "calibrated", calibrated)


@pytest.mark.parametrize("first", [FAST, LEFT])
def test_a_sweep_that_has_begun_never_changes_its_way(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, first: Strategy
) -> None:
    measured(monkeypatch, first)
    assert strategy_of(sweep, "cpu", 1, begun=False) == first
    assert read_strategy(sweep) == first
    measured(monkeypatch, None)
    assert strategy_of(sweep, "cpu", 1, begun=True) == first


def test_before_its_first_run_a_way_that_was_left_is_measured_anew(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, LEFT)
    strategy_of(sweep, "cpu", 1, begun=False)
    measured(monkeypatch, FAST)
    assert strategy_of(sweep, "cpu", 1, begun=False) == FAST
    assert read_strategy(sweep) == FAST


@pytest.mark.parametrize("kept", [FAST, LEFT])
def test_the_reason_is_said_and_shown(
    command: Any, ray_started: None, tiny_yaml: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, kept: Strategy
) -> None:
    measured(monkeypatch, kept)
    ended = command("run", tiny_yaml, "pack=auto", "--out", tmp_path / "sweep")
    assert ended.code == 0
    assert f"packs are trained by method {kept.method}: {kept.reason}" in " ".join(ended.err.split())
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert f"training {kept.method} ({kept.reason})" in page
    assert "packs of 8 runs: the longest kind takes" in page
