"""What a person sees while runs are trained: bars on a terminal and in a notebook, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from workers.wording import duration

QUIET_SECONDS = 15.0


class Counter:
    """Counts finished runs and knows the rate and the time left."""

    def __init__(self, total: int):
        self.total = total
        self.done = self.failed = 0
        self._started = time.monotonic()

    def add(self, done: int, failed: int) -> None:
        """Count a committed pack."""
        self.done += done
        self.failed += failed

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started

    def summary(self) -> str:
        """Return rate, failures and time left."""
        finished = self.done + self.failed
        if not finished:
            return "starting"
        rate = finished / max(self.seconds, 1e-9)
        left = duration((self.total - finished) / rate)
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{rate:.1f} runs/s{failed}, {left} left" if finished < self.total else f"{rate:.1f} runs/s{failed}"


def draws_bars(console: Console) -> bool:
    """Say whether bars can be drawn: on a terminal, and in a notebook that has the widgets which rich draws them with."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


class Reporter:
    """Shows progress per design."""

    def __init__(self, console: Console, totals: Mapping[str, int]):
        self.counter = Counter(sum(totals.values()))
        self._left = dict(totals)
        """Runs to come, by design."""
        self._console = console
        self._bars: Progress | None = None
        self._said = time.monotonic()
        if draws_bars(console):
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._tasks = {name: self._bars.add_task(name, total=total, note="") for name, total in totals.items()}
            self._all = self._bars.add_task("all", total=self.counter.total, note="starting")

    def add(self, design: str, done: int, failed: int) -> None:
        """Show a committed pack."""
        self.counter.add(done, failed)
        self._left[design] -= done + failed
        if self._bars:
            self._bars.advance(self._tasks[design], done + failed)
        if self._left[design] < 0:  # what was in flight of a design that is stopped
            self._expect(design, 0)
        note = self.counter.summary()
        if self._bars:
            self._bars.update(self._all, advance=done + failed, note=note)
        elif time.monotonic() - self._said > QUIET_SECONDS:
            self._said = time.monotonic()
            self._console.print(f"{self.counter.done + self.counter.failed:,} of {self.counter.total:,} runs, {note}")

    def expect_no_more(self, design: str) -> None:
        """Take note that a design is stopped: what is not there by now was left out, but for what is in flight."""
        if self._left.get(design):
            self._expect(design, 0)

    def _expect(self, design: str, runs: int) -> None:
        """Expect so many more runs of a design."""
        self.counter.total += runs - self._left[design]
        self._left[design] = runs
        if self._bars:
            bar = self._bars.tasks[self._tasks[design]]
            self._bars.update(bar.id, total=bar.completed + runs)
            self._bars.update(self._all, total=self.counter.total)

    def open(self) -> None:
        """Begin to draw."""
        if self._bars:
            self._bars.start()

    def close(self) -> None:
        """Draw no more."""
        if self._bars:
            self._bars.stop()
