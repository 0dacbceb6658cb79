import io
import time

import pytest
from rich.console import Console

from orchestrator.cli import progress
from orchestrator.cli.progress import Counter, Reporter, draws_bars


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_counter_knows_rate_failures_and_time_left(clock: list[float]) -> None:
    counter = Counter(100)
    assert counter.summary() == "starting"
    clock[0] = 10
    counter.add(18, 2)
    assert counter.summary() == "2.0 runs/s, 2 failed, 40 s left"
    counter.add(80, 0)
    assert counter.summary() == "10.0 runs/s, 2 failed"


def test_a_counter_stands_a_clock_that_has_not_moved(clock: list[float]) -> None:
    counter = Counter(2)
    counter.add(1, 0)
    assert "runs/s" in counter.summary()


def test_without_a_terminal_a_line_is_said_now_and_then(clock: list[float]) -> None:
    said = io.StringIO()
    reporter = Reporter(Console(file=said, width=100), {"fit": 2000})
    reporter.open()
    for _ in range(10):
        clock[0] += progress.QUIET_SECONDS / 4
        reporter.add("fit", 100, 0)
    reporter.close()
    assert said.getvalue().splitlines() == [
        "500 of 2,000 runs, 26.7 runs/s, 56 s left",
        "1,000 of 2,000 runs, 26.7 runs/s, 38 s left",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_of_a_design_that_is_stopped_no_more_is_expected(terminal: bool) -> None:
    drawn = io.StringIO()
    reporter = Reporter(Console(file=drawn, force_terminal=terminal, width=120), {"fit": 400, "other": 6})
    reporter.open()
    reporter.add("fit", 40, 0)
    reporter.expect_no_more("fit")
    assert reporter.counter.total == 46
    reporter.add("fit", 8, 0)
    assert reporter.counter.total == 54, "what was in flight lands"
    reporter.add("other", 6, 0)
    assert reporter.counter.done == reporter.counter.total
    reporter.close()
    if terminal:
        assert all(shown in drawn.getvalue() for shown in ("48/48", "6/6", "54/54"))


def test_on_a_terminal_there_is_a_bar_for_each_design_and_for_all() -> None:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=120)
    reporter = Reporter(console, {"fit": 4, "heldout": 2})
    reporter.open()
    reporter.add("fit", 3, 1)
    reporter.add("heldout", 2, 0)
    reporter.close()
    for shown in ("fit", "4/4", "heldout", "2/2", "all", "6/6", "1 failed"):
        assert shown in drawn.getvalue()


@pytest.mark.parametrize("widgets", [True, False])
def test_in_a_notebook_there_are_bars_where_widgets_are_installed(
    monkeypatch: pytest.MonkeyPatch, widgets: bool
) -> None:
    monkeypatch.setattr(progress, "find_spec", lambda name: object() if widgets and name == "ipywidgets" else None)
    assert draws_bars(Console(force_jupyter=True)) is widgets
    assert not draws_bars(Console(file=io.StringIO())), "neither a notebook nor a terminal"


def test_in_a_notebook_without_widgets_lines_are_said(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    console = Console(force_jupyter=True)
    said: list[object] = []
    monkeypatch.setattr(console, "print", said.append)
    reporter = Reporter(console, {"fit": 200})
    reporter.open()
    clock[0] = progress.QUIET_SECONDS * 2
    reporter.add("fit", 100, 0)
    reporter.close()
    assert said == ["100 of 200 runs, 3.3 runs/s, 30 s left"]
