"""How the LDS of one estimator goes with one of its options, on the runs that judge: a table and a figure beside the scores.

It looks at what judges, so no value may be chosen by it for a leaderboard, and none of it gets into one; `tune` chooses by
fitting runs. Each value is written when it is known, and a later call goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from estimators.contract import Estimator
from estimators.evidence import Evidence, Runs
from estimators.findings import Findings
from estimators.scores import lds
from orchestrator.attribution.evidence import gather, heldout, planned_subsets, with_models
from orchestrator.attribution.option_values import around_default, numbers, refuse_other_than_numbers, with_value
from orchestrator.attribution.standing import source_of
from orchestrator.attribution.workspace import SweepWorkspace
from orchestrator.config.estimator_section import EstimatorSection, Given, load
from orchestrator.report.page.sensitivity import figure
from orchestrator.report.sensitivity_table import Looked, read_table, write_table
from orchestrator.scoring.lds import refuse_fitted
from orchestrator.scoring.table import Judged
from orchestrator.store import accounting
from orchestrator.store.attributions import list_attributions, read_attributes_of
from orchestrator.store.durable import make_folder, write_atomically
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, CounterfactoryError, DataError, StoreError, near


@dataclass(frozen=True)
class Request:
    """What is to be looked at."""

    estimator: str
    """Its label in the configuration, or the name of any estimator."""
    option: str
    values: Sequence[Any] | None = None
    """Numbers to try; None for a range around the default."""
    measure: str | None = None
    """By default the estimator's, else the first."""


@dataclass(frozen=True)
class Sensitivity:
    """What came of it."""

    table: pd.DataFrame
    """A row a value: the fields of `Looked`."""
    csv: Path
    svg: Path


@dataclass(frozen=True)
class _Look:
    """Everything that a value is computed and judged with."""

    sweep: Sweep
    store: RunStore
    request: Request
    options: Estimator
    """With the option's default, or what the configuration says."""
    evidence: Evidence
    runs: Runs
    made_of: str
    """Tells values of other options, runs or measures from these."""


def sensitivity(
    sweep: Sweep,
    store: RunStore,
    request: Request,
    on_value: Callable[[Looked, bool], None] = lambda looked, kept: None,
    *,
    say: Callable[[str], None] = lambda line: None,
    before_task: Callable[[], object] = lambda: None,
) -> Sensitivity:
    """Compute the estimator over values of the option, judge each, and write the table and the figure.

    `on_value` is told each value, and whether it was there from a former call. Raises ConfigError for an unknown estimator or
    option, one that is not numeric, values that it does not take, and where there is nothing to judge by: before anything is
    computed. Values of former calls with the same options and runs stay in the table.
    """
    section = _section(sweep, request.estimator)
    options = _options(sweep, section, request)
    refuse_other_than_numbers(type(options), request.option)
    asked = None if request.values is None else numbers(request.values, request.option)
    taken = [getattr(with_value(options, request.option, value), request.option) for value in asked or ()]
    look = _look(sweep, store, request, section, options, before_task)
    values = around_default(options, request.option, look.evidence) if asked is None else taken
    path = sweep.paths.sensitivity(request.estimator, request.option)
    make_folder(path.parent)
    default = json.dumps(getattr(options, request.option))
    kept = {one.setting: one for one in read_table(path) if one.made_of == look.made_of and not one.error}
    found = {setting: replace(one, default=setting == default) for setting, one in kept.items()}
    for value in (json.loads(default), *values):
        setting = json.dumps(value)
        if setting not in found:
            found[setting] = replace(_looked(look, value, say), default=setting == default)
            write_table(path, found.values())
            on_value(found[setting], False)
        elif setting in kept:
            on_value(found[setting], True)
    rows = sorted(found.values(), key=lambda one: (not math.isnan(one.number), one.number))
    write_table(path, rows)
    svg = path.with_suffix(".svg")
    write_atomically(svg, figure(rows, request.estimator, request.option, _tuned(sweep, request)).encode())
    return Sensitivity(pd.DataFrame(rows), path, svg)


def _section(sweep: Sweep, name: str) -> EstimatorSection:
    """Return an estimator of the configuration, or any other one with its defaults. Raises ConfigError where there is none."""
    if name in sweep.config.estimators:
        return sweep.config.estimators[name]
    load(name, sweep.config.folder)
    return EstimatorSection.model_validate(Given({"estimator": name}, sweep.config.folder))


def _options(sweep: Sweep, section: EstimatorSection, request: Request) -> Estimator:
    """Return the estimator's options, with chosen values of tuned ones; the one that is looked at has its default then."""
    given = dict(section.given)
    others = [option for option in section.tune if option != request.option]
    if others:
        if request.estimator not in list_attributions(sweep.paths):
            raise ConfigError(
                f"estimator {request.estimator!r}: its {others[0]} is tuned, but not chosen yet: attribute it"
            )
        chosen = read_attributes_of(sweep.paths, request.estimator).options
        given |= {option: chosen[option] for option in others}
    return type(section.options).model_validate(given)


def _look(
    sweep: Sweep,
    store: RunStore,
    request: Request,
    section: EstimatorSection,
    options: Estimator,
    before_task: Callable[[], object],
) -> _Look:
    measure = request.measure or section.measure or sweep.config.measures[0]
    if measure not in sweep.config.measures:
        raise ConfigError(f"measure {measure!r} is not recorded: {near(measure, list(sweep.config.measures))}")
    runs = heldout(sweep, store, measure)
    if runs is None:
        raise ConfigError(f"{sweep.paths.root}: has no finished scoring runs to judge {request.estimator} by")
    evidence = gather(sweep, store, measure)
    if options.needed & {"gradients", "checkpoints"}:
        before_task()
        evidence = with_models(evidence, sweep, store)
        options.check(evidence)
    rows = {name: accounting.rows_hash(store, name) for name in store.designs}
    told = [
        section.estimator,
        source_of(section),
        options.model_dump(mode="json", exclude={request.option}),
        measure,
        rows,
    ]
    resamples = _resamples(sweep)
    plain = json.dumps([*told, resamples, sweep.config.seed], sort_keys=True)
    made_of = hashlib.sha256(plain.encode()).hexdigest()[:16]
    return _Look(sweep, store, request, options, evidence, runs, made_of)


def _resamples(sweep: Sweep) -> int:
    section = sweep.config.scores.lds
    assert section is not None, "there are runs to score on"
    return section.resamples


def _looked(look: _Look, value: Any, say: Callable[[str], None]) -> Looked:
    """Compute and judge one value; where that cannot be done, the row says why."""
    sweep, request, runs = look.sweep, look.request, look.runs
    about: dict[str, Any] = {
        "option": request.option,
        "setting": json.dumps(value),
        "number": _number(value),
        "made_of": look.made_of,
        "measure": runs.measure,
        "design": runs.design,
    }
    label = f"sensitivity.{request.estimator}"
    workspace = SweepWorkspace(sweep.paths, label, f"{look.made_of} {value}", sweep.config.ray, say)
    started = time.perf_counter()
    try:
        options = with_value(look.options, request.option, value)
        made = options.attribute(replace(look.evidence, workspace=workspace))
        seconds = time.perf_counter() - started
        refuse_fitted(look.store, Judged(label, made.values, runs.measure, math.nan, seconds, made.fitted_on), runs)
        score = lds(
            made.values,
            runs,
            resamples=_resamples(sweep),
            seed=sweep.config.seed,
            planned=planned_subsets(look.store, runs.design),
        )
    except (StoreError, DataError):
        raise
    except CounterfactoryError as error:
        return Looked(**about, seconds=time.perf_counter() - started, error=str(error))
    workspace.clear()
    ends = {name: getattr(score, name) for name in ("low", "high", "ceiling", "ceiling_low", "ceiling_high", "subsets")}
    return Looked(**about, lds=score.value, **ends, seconds=seconds)


def _tuned(sweep: Sweep, request: Request) -> float | None:
    """Return the number that fitting runs chose for the option; None where they chose none."""
    if request.estimator not in list_attributions(sweep.paths):
        return None
    found = Findings.from_json(read_attributes_of(sweep.paths, request.estimator).details).tuning
    chosen = None if found is None else found.chosen.get(request.option)
    number = _number(chosen)
    return None if math.isnan(number) else number


def _number(value: Any) -> float:
    """Return the number that a value is; NaN for one that is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
