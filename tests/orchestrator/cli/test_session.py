"""A whole sweep run as a library does: no command line, a console of its own, exceptions."""

import io
import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli import session
from orchestrator.cli.interrupts import Interrupted
from orchestrator.cli.session import run_sweep
from orchestrator.config.loading import load
from orchestrator.retraining.counts import finished
from orchestrator.retraining.watch import Watch
from orchestrator.stages import retrain as retraining
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError


@pytest.fixture
def sweep(tiny_yaml: Path, tmp_path: Path) -> Sweep:
    return Sweep.of(load(str(tiny_yaml)), tmp_path / "sweep")


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def inline(inline_pool: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Train without Ray, and call something after every pack."""
    really = retraining.retrain

    def after_every_pack(act: Callable[[], None]) -> None:
        def retrain(sweep: Sweep, store: RunStore, watch: Watch, **options: Any) -> Any:
            def commit(design: str, done: int, failed: int) -> None:
                watch.on_commit(design, done, failed)
                act()

            return really(sweep, store, replace(watch, on_commit=commit), pool=inline_pool(sweep, slots=1), **options)

        monkeypatch.setattr(session.retraining, "retrain", retrain)

    after_every_pack(lambda: None)
    return after_every_pack


def test_all_stages_are_run_and_shown_on_the_console(
    sweep: Sweep, console: Console, inline: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run_sweep(sweep, console=console)
    assert outcome.failed == 0
    assert set(outcome.scores.metric) == {"lds", "loo_correlation", "slope", "explained_variance"}
    assert outcome.report.stat().st_size > 1000
    for line in ("tiny: 42 runs to train", "trained 42 runs in ", "attributed tracin"):
        assert line in said(console)
    assert tuple(capsys.readouterr()) == ("", "")


def test_a_design_that_stops_says_where_and_why(
    game: dict[str, Any], make_sweep: Callable[[Any], Sweep], console: Console, inline: Any, command: Any
) -> None:
    game["task"]["arguments"] = {"noise": 0.1}
    game["designs"] = {"fit": {"kind": "subsets", "subsets": 200}}
    game["stop"] = {"fit": {"when": "standard_error < 0.5 for 95% and runs >= 32", "every": 8}}
    sweep = make_sweep({**game, "estimators": {"difference_in_means": {}}})
    run_sweep(sweep, console=console)
    (first,) = [line for line in said(console).splitlines() if " stopped at " in line]
    assert re.fullmatch(
        r"fit stopped at 32 of its 200 runs: standard_error 0\.\d+ \(< 0\.5 for 95%\), runs 32 \(>= 32\)", first
    )
    done = int(re.findall(r"(\d+) of 200 are done", said(console))[0])
    assert 32 < done <= 40
    assert f"{done} of 200 are done, {200 - done} are left out" in said(console)
    told = f"{first}; {done} are done"
    assert told in "".join(command("status", sweep.paths.root).out.split("\n"))
    (stopped,) = json.loads(command("status", sweep.paths.root, "--json").out)["stopped"]
    assert (stopped["design"], stopped["look"]["runs"], stopped["done"], stopped["planned"]) == ("fit", 32, done, 200)
    assert told.replace("<", "&lt;").replace(">", "&gt;") in (sweep.paths.root / "report.html").read_text()
    run_sweep(sweep, console=console)
    assert said(console).count("runs to train") == 1, "nothing is trained by the second call"
    assert told in said(console)


def test_ctrl_c_in_the_training_is_an_exception_and_all_that_is_finished_is_kept(
    sweep: Sweep, console: Console, inline: Any
) -> None:
    inline(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        run_sweep(sweep, console=console)
    assert said(console).endswith("runs to go; the same command goes on from here\n")
    inline(lambda: None)
    with RunStore.open(sweep.paths, write=True) as store:  # the lease was given back
        done = sum(counts[0] for counts in finished(sweep, store).values())
    assert 0 < done < 42
    assert run_sweep(sweep, console=console).failed == 0
    assert f"{42 - done} runs to train" in said(console)


def test_a_long_sweep_is_asked_for_before_anything_is_written(
    sweep: Sweep, console: Console, inline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(forecast: str) -> None:
        asked.append(forecast)
        raise ConfigError("too long")

    monkeypatch.setattr(session.settling, "MANY_RUNS", 1)
    monkeypatch.setattr(session.settling, "LARGE_SECONDS", 0.0)
    with pytest.raises(ConfigError, match="too long"):
        run_sweep(sweep, console=console, ask=refuse)
    assert asked[0].startswith("forecast: 42 runs, ")
    assert said(console) == ""
    assert not sweep.paths.root.exists()


def test_a_sweep_that_is_not_long_is_not_asked_for(
    sweep: Sweep, console: Console, inline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session.settling, "MANY_RUNS", 1)
    run_sweep(sweep, console=console, ask=pytest.fail)
    assert said(console).startswith("forecast: 42 runs, ")
    assert sweep.paths.forecast.is_file()
