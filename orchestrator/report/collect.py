"""What a sweep's folder holds, gathered for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from estimators.scores import noise_ceiling, spearman
from orchestrator.attribution.evidence import heldout
from orchestrator.forecast.cost import read_forecast
from orchestrator.report import sections
from orchestrator.report.data import DesignHealth, ReportData
from orchestrator.report.foretold import foretold
from orchestrator.report.page.leaderboard import family_of
from orchestrator.retraining.counts import finished
from orchestrator.scoring.absent_metrics import absent_metrics
from orchestrator.scoring.stale import stale_scores
from orchestrator.scoring.suspects import named_suspects
from orchestrator.scoring.table import read_scores
from orchestrator.store import accounting
from orchestrator.store.attributions import Attributes, list_attributions, read_attribution
from orchestrator.store.plain_files import text_of
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.absent import absent
from orchestrator.sweeps.strategy_record import read_strategy
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.task_record import read_record


@dataclass(frozen=True)
class _HeldOut:
    """The runs scored on, and what attributions of the report's measure predict of them."""

    actual: NDArray[np.floating]
    """(s, t) outputs, mean over seeds; no rows where there are no such runs."""
    predicted: Mapping[str, NDArray[np.floating]]
    """Estimator -> (s, t); empty where there are no such runs."""
    ceiling: NDArray[np.floating]
    """(t,) noise ceiling of every query, NaN where unknown or where there is nothing to find."""

    @property
    def per_query_lds(self) -> dict[str, NDArray[np.floating]]:
        """Estimator -> (t,)."""
        return {label: spearman(one, self.actual) for label, one in self.predicted.items()}


def collect(sweep: Sweep, store: RunStore) -> ReportData:
    """Return everything the report shows."""
    measure = sweep.config.measures[0]
    stored = set(list_attributions(sweep.paths))
    answers = {label: read_attribution(sweep.paths, label) for label in sweep.config.estimators if label in stored}
    attributes = {label: answer.attributes for label, answer in answers.items()}
    same = {label: answer for label, answer in answers.items() if answer.attributes.measure == measure}
    record = read_record(sweep)
    held_out = _held_out(sweep, store, {label: (answer.values, answer.bias) for label, answer in same.items()})
    return ReportData(
        title=sweep.config.name,
        created=f"{datetime.now().astimezone():%d %B %Y, %H:%M %Z}",
        description=record.description,
        measure=measure,
        n=store.n,
        t=store.t,
        config_yaml=text_of(sweep.paths.config),
        config_hash=store.config_hash,
        versions=_made_with(sweep, store),
        designs=tuple(_health(store, name, counts) for name, counts in finished(sweep, store).items()),
        scores=read_scores(sweep.paths.scores),
        models={label: one.models for label, one in attributes.items()},
        actual=held_out.actual,
        predicted=held_out.predicted,
        per_query_lds=held_out.per_query_lds,
        per_query_ceiling=held_out.ceiling,
        attributions={label: answer.values for label, answer in same.items()},
        stage_seconds=_stage_seconds(store, attributes),
        failures=tuple(accounting.failure_lines(store)[:20]),
        show=record.examples.show,
        label=record.examples.label,
        queries=sweep.queries,
        families={label: family_of(frozenset(one.needs)) for label, one in attributes.items()},
        curves=sections.curves(attributes),
        tunings=sections.tunings(attributes),
        expectations=sections.expectations(sweep, store, answers),
        stopping=sections.stopping(sweep),
        stopped=sections.stopped(sweep, store),
        learning_curves=sections.learning_curves(sweep, attributes),
        utilities=sections.utilities(answers),
        group_effects=sections.group_effects(sweep, record.examples, attributes),
        class_effects=sections.class_tables(sweep, record.examples, attributes),
        foretold=tuple(foretold(sweep, store, record.examples, answers)),
        removal=sections.removal_lines(sweep),
        stale_scores=stale_scores(sweep),
        suspects=named_suspects(sweep),
        absent={**absent(sweep.config, sweep.paths), **absent_metrics(sweep)},
    )


def _held_out(
    sweep: Sweep,
    store: RunStore,
    attributions: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating] | None]],
) -> _HeldOut:
    """Return the runs scored on, and what each attribution (n, t), with its bias (t,) where there is one, predicts of them."""
    runs = heldout(sweep, store, sweep.config.measures[0])
    if runs is None:
        return _HeldOut(np.zeros((0, store.t)), {}, np.full(store.t, np.nan))
    masks, actual = runs.means()
    predicted: dict[str, NDArray[np.floating]] = {}
    for label, (values, bias) in attributions.items():
        added = np.asarray(masks @ values.astype(np.float64), dtype=np.float64)
        predicted[label] = added if bias is None else added + bias
    ceiling = noise_ceiling(runs)
    return _HeldOut(actual, predicted, np.full(store.t, np.nan) if ceiling.nothing_to_find else ceiling.per_query)


def _stage_seconds(store: RunStore, attributes: Mapping[str, Attributes]) -> dict[str, float]:
    return {
        "retrain (worker time)": accounting.train_seconds(store, store.designs),
        **{f"attribute: {label}": one.seconds for label, one in attributes.items()},
    }


def _made_with(sweep: Sweep, store: RunStore) -> dict[str, str]:
    """Return the libraries' versions, and how and why packs are trained as they are."""
    strategy, expected = read_strategy(sweep), read_forecast(sweep)
    attributes = {key: str(value) for key, value in store.attributes.items() if value}
    if strategy is not None:
        attributes["training"] = f"{strategy.method} ({strategy.reason})"
    if expected is not None and expected.pack:
        attributes["packs of"] = expected.pack
    return attributes


def _health(store: RunStore, name: str, counts: tuple[int, int, int]) -> DesignHealth:
    layout = store.designs[name]
    wall = accounting.wall_seconds(store, name)
    done, failed, pending = counts
    return DesignHealth(
        name,
        layout.kind,
        layout.purpose,
        layout.runs,
        done,
        failed,
        accounting.train_seconds(store, [name]),
        wall,
        (done + failed) / wall if wall > 0 else 0.0,
        layout.runs - done - failed - pending,
    )
