"""How the designs' stopping criteria went, as the sweep's folder keeps it, and which designs are stopped for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from orchestrator.config.schema import Config
from orchestrator.config.stopping_criteria import parse
from orchestrator.store.ledger import DONE
from orchestrator.store.run_store import RunStore
from orchestrator.store.side_files import read_json
from orchestrator.sweeps.sweep import Sweep


@dataclass(frozen=True)
class Look:
    """One evaluation of a criterion."""

    runs: int
    """Finished runs of the design."""
    values: dict[str, float | None]
    """Every quantity compared, by its comparison in words; None while unknown."""
    met: bool


@dataclass
class StoppingRecord:
    """A design's criterion and how it went."""

    design: str
    criterion: str
    looks: list[Look] = field(default_factory=list)
    estimator: str = ""
    """Whose values were looked at, by its name in the configuration; empty where nobody said."""

    def is_of(self, config: Config) -> bool:
        """Whether the configuration has this criterion, over the values of this estimator."""
        section = config.stop.get(self.design)
        if section is None or section.when != self.criterion:
            return False
        return "" in (self.estimator, asked := watched_label(config, self.design)) or asked == self.estimator

    @property
    def met(self) -> bool:
        """Whether the last look said stop."""
        return bool(self.looks) and self.looks[-1].met


@dataclass(frozen=True)
class Stopped:
    """A design that is drawn from no more: where it stopped, and why."""

    design: str
    criterion: str
    look: Look
    """The one that met it."""
    done: int
    """Its finished runs by now: what was in flight has landed since."""
    planned: int
    """All its runs."""

    def __str__(self) -> str:
        found = ", ".join(_found(comparison, value) for comparison, value in self.look.values.items())
        later = f"; {self.done:,} are done" if self.done > self.look.runs else ""
        return f"{self.design} stopped at {self.look.runs:,} of its {self.planned:,} runs: {found}{later}"


def worded(comparison: str) -> str:
    """Return a comparison as a person writes it: 600, not 600.0."""
    return re.sub(r"\.0\b", "", comparison)


def _found(comparison: str, value: float | None) -> str:
    quantity, _, bound = worded(comparison).partition(" ")
    return f"{quantity} {'not known' if value is None else format(value, ',.4g')} ({bound})"


def watched_label(config: Config, design: str) -> str:
    """Return whose values a design is watched by: the estimator named, else the configured one that suits, else its default.

    Empty where the design's kind has no values to watch, or cannot say.
    """
    named, suiting = config.stop[design].estimator, config.designs[design].watched_by
    if named is not None:
        return named
    sections = config.estimators.items()
    same = [label for label, section in sections if section.estimator == suiting and not section.tune]
    return same[0] if same else suiting or ""


def stopped_designs(sweep: Sweep, store: RunStore) -> dict[str, Stopped]:
    """Return the designs that are drawn from no more, by name: the criterion that they have was met, and is by what is there.

    One whose runs were lost since is none of them. Raises StoreError where the file is damaged.
    """
    found = {}
    for name, record in read_stopping(sweep).items():
        if name not in store.designs or not record.is_of(sweep.config):
            continue
        states = store.states(name)
        done = int((states == DONE).sum())
        if record.met and record.looks[-1].runs <= done:
            found[name] = Stopped(name, record.criterion, record.looks[-1], done, len(states))
    return found


def read_stopping(sweep: Sweep) -> dict[str, StoppingRecord]:
    """Return the curves that former calls left, by design. Raises StoreError where the file is damaged."""
    remedy = "delete it, and the criteria are evaluated anew, on what is there"
    return read_json(sweep.paths.stopping, remedy, _parsed) or {}


def _parsed(plain: Any) -> dict[str, StoppingRecord]:
    records = TypeAdapter(list[StoppingRecord]).validate_python(plain)
    for one in records:
        parse(one.criterion)
    return {one.design: one for one in records}
