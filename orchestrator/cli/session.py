"""Stages of a sweep, driven from a terminal: what is under way is shown there."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import typer

from orchestrator.applications.brittleness import nested_sweeps
from orchestrator.cli import tables
from orchestrator.cli.console import err
from orchestrator.cli.interrupts import Interrupts
from orchestrator.cli.progress import Reporter, duration
from orchestrator.execution.ray_pool import ray_pool
from orchestrator.forecast import cost
from orchestrator.retraining.counts import finished
from orchestrator.retraining.strategy import work_of
from orchestrator.retraining.watch import Watch
from orchestrator.stages import attribute as attributing
from orchestrator.stages import forecast as settling
from orchestrator.stages import plan as planning
from orchestrator.stages import retrain as retraining
from orchestrator.store.run_store import RunStore
from orchestrator.store.verification import Damage
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError


def settled(sweep: Sweep, yes: bool) -> Sweep:
    """Return the sweep with its packs sized; say what it is forecast to take, and ask before a long one."""
    settled, expected = settling.settle(sweep)
    if expected is None or sweep.paths.runs.exists():
        return settled
    long = expected.seconds > settling.LARGE_SECONDS and not yes
    if long and not sys.stdin.isatty():
        raise ConfigError(f"{tables.forecast_line(expected)}: that is long; add --yes if it is meant")
    err.print(tables.forecast_line(expected), highlight=False)
    if long:
        typer.confirm("Train it?", abort=True)
    cost.keep_forecast(settled, expected)
    return settled


def retrain_watched(sweep: Sweep, store: RunStore, retry_failed: bool) -> int:
    """Retrain with progress on the terminal; return how many runs have failed.

    Ctrl-C ends in order, says how to go on, and exits 130.
    """
    settings = sweep.config.ray
    reporter: Reporter | None = None

    def say_damage(damage: Damage) -> None:
        err.print(
            f"[yellow]damaged, will be trained again:[/] {tables.escape(tables.damage_line(damage))}", soft_wrap=True
        )

    def say_stop() -> None:
        err.print(
            f"stopping: waiting up to {settings.patience:g} s for packs in flight (Ctrl-C again gives them up)",
            soft_wrap=True,
        )

    def start(totals: dict[str, int]) -> None:
        nonlocal reporter
        reporter = Reporter(err, {name: total for name, total in totals.items() if total})
        if reporter.counter.total:
            err.print(f"[bold]{sweep.config.name}[/]: {reporter.counter.total:,} runs to train", highlight=False)
            reporter.open()

    def commit(design: str, done: int, failed: int) -> None:
        if reporter:
            reporter.add(design, done, failed)

    with Interrupts(settings.patience, say_stop) as signals:
        watch = Watch(start, commit, signals.stopping, signals.patient, say_damage)
        try:
            tally = retraining.retrain(sweep, store, watch, retry_failed=retry_failed)
        finally:
            if reporter:
                reporter.close()
    counts = finished(sweep, store).values()
    done, failed, pending = (sum(count[state] for count in counts) for state in range(3))
    if reporter and tally.done + tally.failed:
        err.print(
            f"trained {tally.done:,} runs in {duration(reporter.counter.seconds)}"
            f" ({reporter.counter.summary()}); {done:,} of {done + failed + pending:,} are done"
        )
    if failed:
        err.print(
            f"[yellow]{failed:,} runs failed[/]; why: counterfactory status {sweep.paths.root}; mend the cause, then "
            "run with --retry-failed",
            soft_wrap=True,
        )
    if signals.stopping():
        err.print(f"interrupted with {pending:,} runs to go; the same command goes on from here", soft_wrap=True)
        store.close()
        raise typer.Exit(130)
    return failed


def remove_watched(sweep: Sweep, retry_failed: bool = False) -> int:
    """Train what the removal curves need, if the configuration asks for any; return how many runs have failed."""
    failed = 0
    with ExitStack() as stack:
        for nested in nested_sweeps(sweep):
            with planning.prepare(nested) as store:
                if any(pending for _, _, pending in finished(nested, store).values()):
                    # Ray is started once for all of them.
                    stack.enter_context(ray_pool(work_of(sweep), sweep.config.ray))
                failed += retrain_watched(nested, store, retry_failed)
    return failed


def attribute_watched(sweep: Sweep, store: RunStore, again: bool = False) -> int:
    """Compute the attributions, saying each; return how many of them failed."""

    def say(made: attributing.Attributed) -> None:
        if made.error:
            err.print(f"[bold red]failed:[/] {tables.escape(made.error)}", soft_wrap=True, highlight=False)
            return
        trained = f"from {made.models:,} models, " if made.models else ""
        note = "kept" if made.kept else duration(made.seconds)
        err.print(f"attributed [bold]{made.estimator}[/] ({trained}{note})", highlight=False)
        for line in made.notes:
            err.print(f"  {tables.escape(line)}", soft_wrap=True, highlight=False)

    def tell(line: str) -> None:
        err.print(tables.escape(line), soft_wrap=True, highlight=False)

    made = attributing.attribute(sweep, store, say, again=again, say=tell)
    return sum(bool(one.error) for one in made)
