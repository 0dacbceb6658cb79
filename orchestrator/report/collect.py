"""What a sweep's folder holds, gathered for its report."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from estimators.registry import find
from estimators.scores import noise_ceiling, spearman
from orchestrator.attribution.evidence import heldout
from orchestrator.report import sections
from orchestrator.report.data import DesignHealth, Family, ReportData
from orchestrator.report.page.leaderboard import family_of
from orchestrator.retraining.counts import finished
from orchestrator.scoring.table import read_scores
from orchestrator.store import accounting
from orchestrator.store.attributions import list_attributions, read_attribution
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.task_hooks import description_of, labeller_of, shower_of


def collect(sweep: Sweep, store: RunStore) -> ReportData:
    """Return everything the report shows."""
    measure = sweep.config.measures[0]
    stored = set(list_attributions(sweep.paths))
    answers = {label: read_attribution(sweep.paths, label) for label in sweep.config.estimators if label in stored}
    told = {label: answer.attributes for label, answer in answers.items()}
    same = {label: answer for label, answer in answers.items() if answer.attributes.measure == measure}
    runs = heldout(sweep, store, measure)
    if runs is None:
        masks, actual = np.zeros((0, sweep.task.n), dtype=bool), np.zeros((0, sweep.t))
        ceiling = np.full(sweep.t, np.nan)
    else:
        masks, actual = runs.means()
        ceiling = noise_ceiling(runs, resamples=0).per_query
    predicted = {label: masks @ answer.values.astype(np.float64) for label, answer in same.items()}
    for label, answer in same.items():
        if answer.bias is not None:
            predicted[label] = predicted[label] + answer.bias
    return ReportData(
        title=sweep.config.name,
        created=f"{datetime.now().astimezone():%d %B %Y, %H:%M %Z}",
        description=description_of(sweep.task),
        measure=measure,
        n=sweep.task.n,
        t=sweep.t,
        config_yaml=sweep.paths.config.read_text(encoding="utf-8"),
        config_hash=sweep.config.identity(),
        versions={key: str(value) for key, value in store.attributes.items() if value and key != "data_hash"},
        designs=tuple(_health(store, name, counts) for name, counts in finished(sweep, store).items()),
        scores=read_scores(sweep.paths.scores),
        models={label: answer.attributes.models for label, answer in answers.items()},
        actual=actual,
        predicted=predicted if runs is not None else {},
        per_query_lds={label: spearman(one, actual) for label, one in predicted.items()} if runs is not None else {},
        per_query_ceiling=ceiling,
        attributions={label: answer.values for label, answer in same.items()},
        stage_seconds={
            "retrain (worker time)": accounting.train_seconds(store, store.designs),
            **{f"attribute: {label}": answer.attributes.seconds for label, answer in answers.items()},
        },
        failures=tuple(accounting.failure_lines(store)[:20]),
        show=shower_of(sweep.task),
        label=labeller_of(sweep.task),
        queries=sweep.queries,
        families={label: _family(sweep.config.estimators[label].estimator) for label in answers},
        expectations=sections.expectations(sweep, store, answers),
        stopping=sections.stopping(sweep),
        learning_curves=sections.learning_curves(sweep, told),
        utilities=sections.utilities(answers),
        group_effects=sections.group_effects(sweep, told),
        class_effects=sections.class_tables(sweep, told),
        removal=sections.removal_lines(sweep),
    )


def _family(estimator: str) -> Family:
    return family_of(find(estimator).needs)


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
