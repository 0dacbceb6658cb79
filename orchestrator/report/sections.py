"""What the report shows beside scores: forecast and fact, stopping, values of examples and groups, removal curves."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from estimators.findings import Findings, LearningCurve
from estimators.values.intervals import interval
from orchestrator.applications import removal_curves
from orchestrator.config.stopping_criteria import Comparison, parse
from orchestrator.forecast.cost import REMOVAL, Forecast, read_forecast
from orchestrator.report.class_effects import class_table, group_name
from orchestrator.report.data import (
    ClassTable,
    Expectation,
    GroupRow,
    LearningLine,
    RemovalLine,
    StopCurve,
    Utilities,
)
from orchestrator.store import accounting
from orchestrator.store.attributions import Attributes, StoredAttribution
from orchestrator.store.ledger import DONE
from orchestrator.store.plain_files import files_below
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.examples import Examples
from orchestrator.sweeps.stopping_record import read_stopping, stopped_designs, worded
from orchestrator.sweeps.sweep import Sweep
from workers.wording import duration


def curves(attributes: Mapping[str, Attributes]) -> dict[str, str]:
    """Return, by label, what attributions have in common that differ in their number of reference models alone.

    Left out are those that nothing else differs so from.
    """
    found = {label: _but_for_models(one) for label, one in attributes.items() if "checkpoints" in one.needs}
    common = Counter(found.values())
    return {label: key for label, key in found.items() if common[key] > 1}


def tunings(attributes: Mapping[str, Attributes]) -> dict[str, str]:
    """Return, by label, how options were chosen and how long that took, where fitting runs chose them."""
    found = {label: _findings(one).tuning for label, one in attributes.items()}
    return {
        label: f"{one.sentence}; {duration(one.seconds)}, which its attribution's time holds"
        for label, one in found.items()
        if one is not None
    }


def _but_for_models(one: Attributes) -> str:
    tuning = _findings(one).tuning
    chosen = {} if tuning is None else tuning.chosen  # each number of models has values of its own
    options = {key: value for key, value in one.options.items() if key != "models" and key not in chosen}
    return json.dumps([one.estimator, one.source, one.measure, options, sorted(chosen)], sort_keys=True, default=str)


def expectations(sweep: Sweep, store: RunStore, answers: Mapping[str, StoredAttribution]) -> tuple[Expectation, ...]:
    """Return what was forecast beside what happened; nothing when nothing was forecast."""
    made = read_forecast(sweep)
    return () if made is None else tuple(_compared(made, sweep, store, answers))


def _compared(
    made: Forecast, sweep: Sweep, store: RunStore, answers: Mapping[str, StoredAttribution]
) -> Iterator[Expectation]:
    nan = math.nan
    facts = _facts(made, sweep, store)
    yield from _wall_times(made, store, facts)
    for one in made.designs:
        if one.design not in facts:
            continue
        fact = facts[one.design]
        yield Expectation(f"{one.design}: runs", "count", one.runs, nan, nan, fact.runs)
        yield Expectation(f"{one.design}: training, summed", "time", one.seconds, nan, nan, fact.seconds)
        if math.isfinite(one.standard_error):
            error = _measured_error(sweep, one.design, answers)
            yield Expectation(f"{one.design}: standard error of a value", "number", one.standard_error, nan, nan, error)
    held = sum(path.stat().st_size for path in files_below(sweep.paths.runs))
    yield Expectation("runs on disk, at most", "bytes", made.bytes, nan, nan, held)


@dataclass(frozen=True)
class _Fact:
    """What became of one design of a forecast."""

    runs: int
    seconds: float
    """Worker time of its runs."""


def _facts(made: Forecast, sweep: Sweep, store: RunStore) -> dict[str, _Fact]:
    facts = {}
    for one in made.designs:
        if one.design == REMOVAL:
            curves = removal_curves.read_removals(sweep)
            runs = sum(curve.seeds * len(curve.curve.removed) for curve in curves)
            facts[REMOVAL] = _Fact(runs, sum(curve.train_seconds for curve in curves))
        elif one.design in store.designs:
            done = int((store.states(one.design) == DONE).sum())
            facts[one.design] = _Fact(done, accounting.train_seconds(store, [one.design]))
    return facts


def _wall_times(made: Forecast, store: RunStore, facts: Mapping[str, _Fact]) -> Iterator[Expectation]:
    """Yield the time of all runs; and where truncation or a stopping criterion left some out, the time of those trained."""
    removing = facts[REMOVAL].seconds if REMOVAL in facts else 0.0  # these runs are in folders of their own
    wall = accounting.working_seconds(store) + removing / made.slots
    yield Expectation("time on the wall", "time", made.seconds, made.low, made.high, wall)
    known = [one for one in made.designs if one.design in facts]
    work = sum(one.seconds for one in known)
    trained = sum(one.seconds * min(1.0, facts[one.design].runs / one.runs) for one in known)
    if trained < work:
        low, middle, high = (trained / work * one for one in (made.low, made.seconds, made.high))
        yield Expectation("the same, of the runs that were trained", "time", middle, low, high, wall)


def _measured_error(sweep: Sweep, design: str, answers: Mapping[str, StoredAttribution]) -> float:
    """Return the mean standard error of what the estimator that suits a design measures, NaN where none was asked for.

    That is a value's; where whole groups were left out it is a group's effect, of which a value may be a share.
    """
    suiting = sweep.config.designs[design].measured_by
    for answer in answers.values():
        attributes, errors = answer.attributes, answer.standard_error
        found = _findings(attributes)
        suits = (
            attributes.estimator in suiting
            and design in attributes.fitted_on
            and attributes.measure == sweep.config.measures[0]
        )
        if suits and found.groups:
            return found.group_error
        if suits and errors is not None and np.isfinite(errors).any():
            return float(np.nanmean(errors))
    return math.nan


def stopping(sweep: Sweep) -> tuple[StopCurve, ...]:
    """Return how each comparison of each stopping criterion went."""
    found = []
    for curve in read_stopping(sweep).values():
        for one in drawn_comparisons(curve.criterion) if curve.looks else ():
            values = [look.values.get(str(one)) for look in curve.looks]
            found.append(
                StopCurve(
                    curve.design,
                    worded(str(one)),
                    one.threshold,
                    np.array([look.runs for look in curve.looks]),
                    np.array([math.nan if value is None else value for value in values]),
                    curve.met,
                )
            )
    return tuple(found)


def drawn_comparisons(criterion: str) -> Sequence[Comparison]:
    """Return the comparisons of a stopping criterion that have a figure."""
    comparisons = parse(criterion).comparisons()
    others = [one for one in comparisons if one.quantity != "runs"]  # runs over runs are a straight line
    return others or comparisons


def stopped(sweep: Sweep, store: RunStore) -> tuple[str, ...]:
    """Return where each design stopped that is drawn from no more, and why, in a sentence."""
    return tuple(map(str, stopped_designs(sweep, store).values()))


def learning_curves(sweep: Sweep, by_label: Mapping[str, Attributes]) -> tuple[LearningLine, ...]:
    """Return the learning curve of every estimator of the report's measure that has one."""
    measure = sweep.config.measures[0]
    found = {
        label: _findings(attributes).learning_curve
        for label, attributes in by_label.items()
        if attributes.measure == measure
    }
    return tuple(_learning_line(label, curve) for label, curve in found.items() if curve is not None)


def _learning_line(label: str, curve: LearningCurve) -> LearningLine:
    return LearningLine(
        label,
        curve.queries,
        curve.runs,
        curve.measured,
        curve.ahead,
        curve.expected,
        curve.ceiling,
        curve.more,
        curve.gain,
        curve.sentence,
    )


def _findings(attributes: Attributes) -> Findings:
    """Return what an attribution's attributes tell beside its values."""
    return Findings.from_json(attributes.details)


def utilities(answers: Mapping[str, StoredAttribution]) -> tuple[Utilities, ...]:
    """Return what every estimator that values the utility says each example is worth."""
    found = []
    for label, answer in answers.items():
        attributes, values, errors = answer.attributes, answer.utility, answer.utility_standard_error
        if values is None or _findings(attributes).groups:  # all examples of a group are worth the same
            continue
        low = high = np.full(len(values), np.nan)
        if errors is not None:
            low, high = interval(values, errors, attributes.degrees_of_freedom)
        found.append(Utilities(label, attributes.measure, values.astype(np.float64), low, high))
    return tuple(found)


def group_effects(sweep: Sweep, examples: Examples, by_label: Mapping[str, Attributes]) -> tuple[GroupRow, ...]:
    """Return the effects of whole groups on the utility, for every estimator that tells them."""
    found = []
    for label, attributes in by_label.items():
        for one in _findings(attributes).groups:
            low, high = interval(one.effect, one.standard_error, attributes.degrees_of_freedom)
            name = group_name(sweep, examples, attributes.fitted_on, one.first_example)
            found.append(GroupRow(label, attributes.measure, name, one.size, one.effect, float(low), float(high)))
    return tuple(found)


def class_tables(sweep: Sweep, examples: Examples, by_label: Mapping[str, Attributes]) -> tuple[ClassTable, ...]:
    """Return the leave-one-class-out table of every estimator that has one."""
    tables = (
        class_table(sweep, examples, label, attributes.measure, attributes.fitted_on, _findings(attributes))
        for label, attributes in by_label.items()
    )
    return tuple(table for table in tables if table is not None)


def removal_lines(sweep: Sweep) -> tuple[RemovalLine, ...]:
    """Return the finished removal curves."""
    return tuple(
        RemovalLine(
            one.estimator,
            one.order,
            one.measure,
            one.curve.removed,
            one.curve.utility,
            one.curve.standard_error,
        )
        for one in removal_curves.read_removals(sweep)
    )
