"""Stages of a sweep, one after the other, with what is under way shown on a console: what `counterfactory run` does.

No command line is needed for it: a mistake is an exception, and so is Ctrl-C (`Interrupted`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
from rich.console import Console

from orchestrator.applications.removal_curves import untrained
from orchestrator.cli import tables
from orchestrator.cli.console import err, shown
from orchestrator.cli.interrupts import Interrupted, Interrupts
from orchestrator.cli.progress import Reporter
from orchestrator.execution.scheduler import Tally
from orchestrator.forecast import cost
from orchestrator.report.sensitivity_table import Looked
from orchestrator.retraining.counts import finished
from orchestrator.retraining.watch import Watch
from orchestrator.scoring.absent_metrics import absent_metrics, unloadable_metrics
from orchestrator.stages import attribute as attributing
from orchestrator.stages import forecast as settling
from orchestrator.stages import plan as planning
from orchestrator.stages import removal as removing
from orchestrator.stages import report as reporting
from orchestrator.stages import retrain as retraining
from orchestrator.stages import score as scoring
from orchestrator.stages import sensitivity as looking
from orchestrator.stages.sensitivity import Request, Sensitivity
from orchestrator.store.damage import Damage
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.absent import absent
from orchestrator.sweeps.origin import whose, whose_estimators
from orchestrator.sweeps.provenance import compared, read_origin, record
from orchestrator.sweeps.stopping_record import Stopped
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.task_record import read_record
from workers.packed.strategy import Strategy
from workers.wording import duration


@dataclass(frozen=True)
class Outcome:
    """What a whole sweep came to."""

    sweep: Sweep
    """The sweep as it was run: its packs have a definite size."""
    failed: int
    """Runs and attributions that failed; why is in the store."""
    scores: pd.DataFrame
    """The table of scores."""
    report: Path
    """The report that was written."""


def run_sweep(
    sweep: Sweep,
    *,
    retry_failed: bool = False,
    accept_changes: bool = False,
    console: Console | None = None,
    ask: Callable[[str], None] | None = None,
) -> Outcome:
    """Plan, retrain, attribute, train the removal curves, score and report; go on where a former call ended.

    `console` shows what is under way (the terminal's standard error where none is given). `ask` is called with the forecast
    of a sweep that will be long, before anything is trained: what it raises keeps the sweep from beginning. Raises UserError for
    a mistake, `Interrupted` after a Ctrl-C while runs were trained, and then everything finished is kept.
    """
    console = console or err
    sweep = settled(sweep, console, ask)
    with prepared(sweep, accept_changes, console) as store:
        failed = retrain_watched(sweep, store, retry_failed, console)
        failed += attribute_watched(sweep, store, accept_changes=accept_changes, console=console)
        failed += remove_watched(sweep, retry_failed, accept_changes, console)
        say_absent(sweep, console)
        scores = scoring.score(sweep, store)
        return Outcome(sweep, failed, scores, reporting.report(sweep, store))


def announce(sweep: Sweep, console: Console = err) -> None:
    """Say whose code is about to run, where the sweep was made elsewhere."""
    if sweep.paths.config.is_file() and (line := whose(sweep, read_origin(sweep.paths))):
        console.print(shown(line), soft_wrap=True, highlight=False)


def announce_estimators(sweep: Sweep, console: Console = err) -> None:
    """Say whose code the sweep's own estimators are, where it was made elsewhere."""
    if line := whose_estimators(sweep, read_origin(sweep.paths)):
        console.print(shown(line), soft_wrap=True, highlight=False)


def say_absent(sweep: Sweep, console: Console = err) -> None:
    """Say what the sweep names and is not here, and the remedy."""
    _say_by_key({**absent(sweep.config, sweep.paths), **absent_metrics(sweep)}, console)


def say_unloadable(console: Console = err) -> None:
    """Say which metrics of installed packages nothing is judged by, because they cannot be loaded."""
    _say_by_key(unloadable_metrics(), console)


def _say_by_key(lines: Mapping[str, str], console: Console) -> None:
    for key, line in lines.items():
        console.print(shown(f"{key}: {line}"), soft_wrap=True, highlight=False)


def prepared(sweep: Sweep, accept_changes: bool = False, console: Console = err) -> RunStore:
    """Return the sweep's store open for writing; say what is another than it was, where that is accepted or of no account."""

    def say(line: str) -> None:
        console.print(shown(line), soft_wrap=True, highlight=False)

    return planning.prepare(sweep, accept_changes=accept_changes, say=say)


def settled(sweep: Sweep, console: Console = err, ask: Callable[[str], None] | None = None) -> Sweep:
    """Return the sweep with its packs sized; say what it is forecast to take, or let `ask` say it of a long one."""
    settling.refuse_another(sweep)
    announce(sweep, console)
    sized, expected = settling.settle(sweep)
    if expected is None or sweep.paths.runs.exists():
        return sized
    line = tables.forecast_line(expected)
    if ask is not None and expected.total[0] > settling.LARGE_SECONDS:
        ask(line)
    else:
        console.print(shown(line), soft_wrap=True, highlight=False)
    cost.keep_forecast(sized, expected)
    return sized


class TrainingDisplay:
    """How the training of one sweep is shown on a console."""

    def __init__(self, sweep: Sweep, console: Console):
        self._sweep = sweep
        self._console = console
        self._reporter: Reporter | None = None

    def watch(self, signals: Interrupts) -> Watch:
        """Return what the retraining tells, and whom it asks whether to stop."""
        return Watch(
            self._start,
            self._commit,
            signals.stopping,
            signals.patient,
            self._say_strategy,
            self._say_damage,
            self._say_stopped,
        )

    def say_stop(self) -> None:
        """Say that a first Ctrl-C has been heard."""
        self._console.print(
            f"stopping: waiting up to {self._sweep.config.ray.patience:g} s for packs in flight "
            "(Ctrl-C again gives them up)",
            soft_wrap=True,
        )

    def close(self) -> None:
        """Draw no more."""
        if self._reporter:
            self._reporter.close()

    def say_outcome(self, tally: Tally, done: int, failed: int, left_out: int, planned: int) -> None:
        """Say what this call trained, what has failed by now, and what of all that was planned is left out for good."""
        if self._reporter and tally.done + tally.failed:
            counter = self._reporter.counter
            self._console.print(
                f"trained {tally.done:,} runs in {duration(counter.seconds)}"
                f" ({counter.summary()}); {done:,} of {planned:,} are done"
                + (f", {left_out:,} are left out" if left_out else "")
            )
        if failed:
            self._console.print(
                f"[yellow]{failed:,} runs failed[/]; why: counterfactory status {shown(self._sweep.paths.root)}; mend the cause, "
                "then run with --retry-failed (and --accept-changes, if that changed the task's source)",
                soft_wrap=True,
            )

    def _start(self, totals: dict[str, int]) -> None:
        self._reporter = Reporter(self._console, {name: total for name, total in totals.items() if total})
        if total := self._reporter.counter.total:
            self._console.print(f"[bold]{shown(self._sweep.config.name)}[/]: {total:,} runs to train", highlight=False)
            self._reporter.open()

    def _commit(self, design: str, done: int, failed: int) -> None:
        if self._reporter:
            self._reporter.add(design, done, failed)

    def _say_stopped(self, stopped: Stopped) -> None:
        self._console.print(shown(str(stopped)), soft_wrap=True, highlight=False)
        if self._reporter:
            self._reporter.expect_no_more(stopped.design)

    def _say_strategy(self, strategy: Strategy) -> None:
        colour = "yellow" if strategy.failed else "default"
        self._console.print(
            f"[{colour}]packs are trained by method {shown(strategy.method)}[/]: {shown(strategy.reason)}",
            soft_wrap=True,
            highlight=False,
        )

    def _say_damage(self, damage: Damage) -> None:
        self._console.print(
            f"[yellow]damaged, will be trained again:[/] {shown(tables.damage_line(damage))}", soft_wrap=True
        )


def retrain_watched(sweep: Sweep, store: RunStore, retry_failed: bool = False, console: Console = err) -> int:
    """Retrain with progress on the console; return how many runs have failed.

    Ctrl-C ends in order and says how to go on; then `Interrupted` is raised.
    """
    display = TrainingDisplay(sweep, console)
    with Interrupts(sweep.config.ray.patience, display.say_stop) as signals:
        try:
            tally = retraining.retrain(sweep, store, display.watch(signals), retry_failed=retry_failed)
        finally:
            display.close()
    counts = finished(sweep, store).values()
    done, failed, pending = (sum(count[state] for count in counts) for state in range(3))
    planned = sum(layout.runs for layout in store.designs.values())
    display.say_outcome(tally, done, failed, planned - done - failed - pending, planned)
    if signals.stopping():
        console.print(f"interrupted with {pending:,} runs to go; the same command goes on from here", soft_wrap=True)
        raise Interrupted
    return failed


def remove_watched(
    sweep: Sweep, retry_failed: bool = False, accept_changes: bool = False, console: Console = err
) -> int:
    """Train what the removal curves need, if the configuration asks for any; return how many runs have failed."""

    def train(nested: Sweep, store: RunStore) -> None:
        retrain_watched(nested, store, retry_failed, console)

    stands = removing.train_removals(sweep, train, retry_failed=retry_failed, accept_changes=accept_changes)
    return sum(one.failed for one in stands)


def say_untrained(sweep: Sweep, console: Console = err) -> None:
    """Say whose removal curves the scores will lack, and what trains them."""
    labels = untrained(sweep)
    if labels:
        console.print(
            shown(
                f"removal curves of {', '.join(labels)} are not trained: `counterfactory retrain {sweep.paths.root}` trains them"
            ),
            soft_wrap=True,
            highlight=False,
        )


def say_missing(sweep: Sweep, console: Console = err) -> None:
    """Say that the sweep keeps no record of what its task tells, and what writes one."""
    if missing := read_record(sweep).missing:
        console.print(shown(missing), soft_wrap=True, highlight=False)


def attribute_watched(
    sweep: Sweep, store: RunStore, again: bool = False, *, accept_changes: bool = False, console: Console = err
) -> int:
    """Compute the attributions, saying each; return how many of them failed."""

    def say(made: attributing.Attributed) -> None:
        if made.error:
            console.print(f"[bold red]failed:[/] {shown(made.error)}", soft_wrap=True, highlight=False)
            return
        trained = f"from {made.models:,} models, " if made.models else ""
        note = "kept" if made.kept else duration(made.seconds)
        note += f"; the one that was kept is stale: {made.stale}" if made.stale else ""
        console.print(
            f"attributed [bold]{shown(made.estimator)}[/] ({trained}{shown(note)})", soft_wrap=True, highlight=False
        )
        for line in made.notes:
            console.print(f"  {shown(line)}", soft_wrap=True, highlight=False)

    tell, before_task = _teller(console), _before_task(sweep, accept_changes, console)
    made = attributing.attribute(sweep, store, say, again=again, say=tell, before_task=before_task)
    return sum(bool(one.error) for one in made)


def before_new_queries(sweep: Sweep, *, accept_changes: bool = False, console: Console = err) -> Callable[[], None]:
    """Return what is called before the task is built for new queries: it says whose code that is, and refuses changed code."""

    def check() -> None:
        announce(sweep, console)
        compared(sweep, accept=accept_changes, data=False)

    return check


def look_watched(
    sweep: Sweep, store: RunStore, request: Request, *, accept_changes: bool = False, console: Console = err
) -> Sensitivity:
    """Look how an LDS goes with an option, saying each value."""

    def say(one: Looked, kept: bool) -> None:
        found = f"failed: {one.error}" if one.error else f"LDS {one.lds:.3f} ({one.low:.3f} to {one.high:.3f})"
        took = "kept" if kept else duration(one.seconds)
        line = f"{one.option} = {one.shown}{' (default)' if one.default else ''}: {found}, {took}"
        console.print(shown(line), soft_wrap=True, highlight=False)

    tell, before_task = _teller(console), _before_task(sweep, accept_changes, console)
    return looking.sensitivity(sweep, store, request, say, say=tell, before_task=before_task)


def _teller(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(shown(line), soft_wrap=True, highlight=False)


def _before_task(sweep: Sweep, accept_changes: bool, console: Console) -> Callable[[], str]:
    """Return what is to be called before the task is built, as often as one likes: it returns the id of what the task is."""

    @cache
    def before_task() -> str:
        announce(sweep, console)
        return record(sweep, compared(sweep, accept=accept_changes)[0])

    return before_task
