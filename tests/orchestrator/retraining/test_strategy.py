"""How packs are trained is chosen once: what is kept with the sweep is used, whatever would be measured here and now."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.retraining import strategy
from orchestrator.retraining.strategy import work_of
from orchestrator.stages.plan import prepare
from orchestrator.sweeps.sweep import Sweep
from workers.packed.strategy import Strategy

ALONE = Strategy("alone", 1, False, "measured first")
STACKED = Strategy("stacked", 4, False, "measured later")


@pytest.fixture
def sweep(tiny: dict[str, Any], make_sweep: Callable[[dict[str, Any]], Sweep]) -> Sweep:
    made = make_sweep(tiny)
    prepare(made).close()
    return made


def measuring(monkeypatch: pytest.MonkeyPatch, found: Strategy) -> list[Strategy]:
    """Let calibration find this; return the list of what was measured."""
    measured: list[Strategy] = []
    monkeypatch.setattr(strategy, "calibrated", lambda *_: measured.append(found) or found)
    return measured


def test_what_was_measured_first_is_kept(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measuring(monkeypatch, ALONE)
    assert work_of(sweep).strategy == ALONE
    assert measured == [ALONE]
    measured = measuring(monkeypatch, STACKED)
    assert work_of(sweep).strategy == ALONE
    assert work_of(Sweep.at(sweep.paths.root)).strategy == ALONE
    assert measured == []


def test_without_what_was_kept_it_is_measured(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, ALONE)
    work_of(sweep)
    sweep.paths.calibration.unlink()
    measuring(monkeypatch, STACKED)
    assert work_of(sweep).strategy == STACKED


def test_what_remained_of_a_failure_is_not_kept(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, replace(ALONE, failed=True))
    work_of(sweep)
    measuring(monkeypatch, STACKED)
    assert work_of(sweep).strategy == STACKED
