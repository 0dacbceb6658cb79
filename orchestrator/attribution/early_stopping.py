"""Stop drawing from a design when it knows enough: its criterion is held against what is stored, and again as runs land."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.contract import Attribution, Estimator
from estimators.evidence import Evidence
from estimators.registry import find
from estimators.scores import lds
from orchestrator.attribution.evidence import heldout, load_runs, no_runs_yet
from orchestrator.config.schema import Config
from orchestrator.config.stopping_criteria import Criterion, Progress, parse
from orchestrator.store.accounting import as_they_came
from orchestrator.store.durable import write_atomically
from orchestrator.store.ledger import DONE
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.stopping_record import (
    Look,
    Stopped,
    StoppingRecord,
    read_stopping,
    stopped_designs,
    watched_label,
)
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, DataError


def watched(config: Config, design: str) -> Estimator:
    """Return whose values a design is watched by: the one named, else the configured one that suits, else its default."""
    label = watched_label(config, design)
    if not label:
        raise ConfigError(f"stop.{design}: a design of kind {config.designs[design].kind!r} has no values to watch")
    section = config.estimators.get(label)
    suits = section is not None and section.estimator == config.designs[design].watched_by and not section.tune
    if section is not None and (suits or config.stop[design].estimator is not None):
        return section.options
    return find(label)()


class Stopper:
    """Watches the designs that have a criterion. What it saw is kept in the sweep's folder, for the report and the next call."""

    def __init__(self, sweep: Sweep, store: RunStore, on_stop: Callable[[Stopped], None] = lambda stopped: None):
        """Tell `on_stop` of every design that is drawn from no more."""
        self._sweep, self._store, self._on_stop = sweep, store, on_stop
        kept = read_stopping(sweep)
        self.curves = {
            name: kept[name]
            if name in kept and kept[name].is_of(sweep.config)
            else StoppingRecord(name, section.when, estimator=watched_label(sweep.config, name))
            for name, section in sweep.config.stop.items()
        }
        self._criteria: dict[str, Criterion] = {
            name: parse(section.when, f"stop.{name}.when") for name, section in sweep.config.stop.items()
        }
        self._history: dict[str, list[NDArray[np.floating[Any]]]] = {name: [] for name in self._criteria}

    def met(self, design: str) -> bool:
        """Say whether a design is to be drawn from no more."""
        return design in self.curves and self.curves[design].met

    def begin(self) -> None:
        """Look at what is stored, before anything is launched. Of looks at runs that are there no more nothing is kept."""
        for design, curve in self.curves.items():
            done = self._done(design)
            curve.looks[:] = [look for look in curve.looks if look.runs <= done]
            if curve.met:
                self._say(design)
            elif done and (not curve.looks or curve.looks[-1].runs < done):
                self._recall(design)
                self._add_look(design, done)

    def landed(self, design: str) -> None:
        """Look again, if enough has landed since the last time."""
        if design not in self.curves or self.met(design):
            return
        done, looks = self._done(design), self.curves[design].looks
        if done - (looks[-1].runs if looks else 0) >= self._sweep.config.stop[design].every:
            self._add_look(design, done)

    def _done(self, design: str) -> int:
        return int((self._store.states(design) == DONE).sum())

    def _add_look(self, design: str, done: int) -> None:
        self.curves[design].looks.append(self._look(design, done))
        self._keep()
        self._say(design)

    def _say(self, design: str) -> None:
        stopped = stopped_designs(self._sweep, self._store)
        if design in stopped:
            self._on_stop(stopped[design])

    def _recall(self, design: str) -> None:
        """Take the values of the runs that were there `every` runs ago, twice as many ago, ...: a criterion may look back."""
        rows, every = as_they_came(self._store, design), self._sweep.config.stop[design].every
        for back in range(self._criteria[design].looks_back(), 0, -1):
            made = self._values(design, rows[: max(0, len(rows) - back * every)])
            if made is not None:
                self._history[design].append(watched_values(made)[0])

    def _look(self, design: str, done: int) -> Look:
        criterion = self._criteria[design]
        progress = self._progress(design, done, criterion)
        values = {str(one): _finite(one.evaluate(progress).value) for one in criterion.comparisons()}
        return Look(done, values, criterion.evaluate(progress).met)

    def _progress(self, design: str, done: int, criterion: Criterion) -> Progress:
        asked = {one.quantity for one in criterion.comparisons()}
        hours = self._hours()
        if not asked & {"standard_error", "rank_stability", "lds_interval"}:
            return Progress(runs=done, hours=hours)
        made = self._values(design)
        if made is None:  # too early for the estimator: nothing is known yet
            return Progress(runs=done, hours=hours)
        values, errors = watched_values(made)
        history = self._history[design]
        history.append(values)
        del history[: max(0, len(history) - criterion.looks_back() - 1)]
        width = self._lds_width(made) if "lds_interval" in asked else math.nan
        return Progress(done, hours, errors, tuple(history), width)

    def _values(self, design: str, among: NDArray[np.int64] | None = None) -> Attribution | None:
        try:
            return watched(self._sweep.config, design).attribute(self._evidence(design, among))
        except DataError:  # too few runs by now
            return None

    def _evidence(self, design: str, among: NDArray[np.int64] | None) -> Evidence:
        """Return what the design's finished runs, or those `among` some rows, and full ones give."""
        measure = self._sweep.config.measures[0]
        full = [name for name in self._store.designs if "full" in self._sweep.config.designs[name].serves]
        runs = {name: load_runs(self._sweep, self._store, name, measure) for name in full if name != design}
        runs[design] = load_runs(self._sweep, self._store, design, measure, among)
        return replace(
            no_runs_yet(self._sweep, measure), runs={name: found for name, found in runs.items() if len(found.subsets)}
        )

    def _lds_width(self, made: Attribution) -> float:
        runs = heldout(self._sweep, self._store, self._sweep.config.measures[0])
        if runs is None:
            return math.nan
        found = lds(made.values, runs, resamples=200, seed=self._sweep.config.seed)
        return found.high - found.low

    def _hours(self) -> float:
        """Hours of work on this sweep, over all its sessions, by a clock that cannot jump."""
        return self._store.worked_seconds() / 3600

    def _keep(self) -> None:
        content = json.dumps([asdict(curve) for curve in self.curves.values()], indent=1)
        write_atomically(self._sweep.paths.stopping, content.encode())


def watched_values(made: Attribution) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]] | None]:
    """Return the values (n,) that a criterion watches, and their standard errors: the utility's, else means over queries."""
    if made.utility is not None:
        return made.utility, made.utility_standard_error
    errors = None if made.standard_error is None else made.standard_error.mean(axis=1)
    return made.values.mean(axis=1), errors


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
