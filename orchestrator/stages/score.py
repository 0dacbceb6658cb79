"""Stage four: judge every attribution by runs it was not fitted on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path

import pandas as pd
from numpy.typing import ArrayLike

from estimators.findings import Findings
from estimators.registry import find
from estimators.scores import judge_array
from estimators.tuning import worded
from orchestrator.scoring.absent_metrics import standing_of_absent_metrics
from orchestrator.scoring.comparison import compare
from orchestrator.scoring.metric import Metric
from orchestrator.scoring.registry import metrics
from orchestrator.scoring.table import Judged, ScoreRow, as_table, write_scores
from orchestrator.store.attributions import Attributes, StoredAttribution, list_attributions, read_attribution
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, DataError, near


def score(sweep: Sweep, store: RunStore) -> pd.DataFrame:
    """Score every stored attribution of the configuration and write scores.parquet; return the tidy table.

    Rows of metrics that are not installed here are kept, as long as the attribution that they judged is the one that is there.
    """
    rows: list[ScoreRow] = []
    for judged, kept in _stored(sweep):
        order, tuned = _fitted_order(sweep, judged), _tuned(kept.attributes)
        rows += [
            replace(row, attribution=kept.content_hash, fitted_order=order, tuned=tuned)
            for row in _judge(sweep, store, judged)
        ]
    for metric in metrics():
        rows += _its_own(metric, metric.judge_sweep(sweep, store))
    return write_scores(sweep.paths.scores, [*compare(rows), *standing_of_absent_metrics(sweep)])


def judge(
    sweep: Sweep, store: RunStore, source: ArrayLike | str | PathLike[str], measure: str | None = None, name: str = ""
) -> pd.DataFrame:
    """Score anybody's attribution (n, t), an array or a .npy file; stores nothing. What it was fitted on, only its maker knows.

    `name` is what the table calls it, by default the file's name.
    """
    measure = measure or sweep.config.measures[0]
    if measure not in sweep.config.measures:
        raise ConfigError(
            f"measure {measure!r} is not recorded in this sweep: {near(measure, list(sweep.config.measures))}"
        )
    label = name or (Path(source).stem if isinstance(source, str | PathLike) else "array")
    values = judge_array(source, store.n, store.t)
    rows = _judge(sweep, store, Judged(label, values, measure, math.nan, math.nan, ()))
    if not rows:
        raise DataError(f"{sweep.paths.root}: has no finished scoring runs to judge {label} by")
    return as_table(rows)


def _stored(sweep: Sweep) -> Iterator[tuple[Judged, StoredAttribution]]:
    """Yield the stored attributions of the configuration, in its order, each as it is kept, too."""
    stored = list_attributions(sweep.paths)
    for label in sweep.config.estimators:
        if label in stored:
            kept = read_attribution(sweep.paths, label)
            judged = Judged(
                label,
                kept.values,
                kept.attributes.measure,
                kept.attributes.train_seconds,
                kept.attributes.seconds,
                kept.attributes.fitted_on,
                kept.utility,
                _claims_units(kept.attributes),
            )
            yield judged, kept


def _tuned(attributes: Attributes) -> str:
    """Return the options that fitting runs chose for an attribution, with their values."""
    found = Findings.from_json(attributes.details).tuning
    return "" if found is None else worded(found.chosen)


def _fitted_order(sweep: Sweep, judged: Judged) -> str:
    """Return whose batches the runs take that an attribution was fitted on; on the full set both orders are one."""
    designs = [sweep.config.designs[name] for name in judged.fitted_on]
    return " and ".join(sorted({one.known_order for one in designs if "full" not in one.serves} - {""}))


def _claims_units(attributes: Attributes) -> bool:
    """Return whether the estimator, with the options it was made with, claims units, as it said then.

    Of an attribution that does not keep it the estimator is asked, if it is registered here; else it claims nothing.
    """
    if attributes.claims_units is not None:
        return bool(attributes.claims_units)
    try:
        estimator = find(attributes.estimator)
    except ConfigError:
        return False
    return estimator.model_validate(dict(attributes.options)).claims_units


def _judge(sweep: Sweep, store: RunStore, judged: Judged) -> list[ScoreRow]:
    rows: list[ScoreRow] = []
    for metric in metrics():
        rows += _its_own(metric, metric.judge(sweep, store, judged))
    return rows


def _its_own(metric: Metric, rows: list[ScoreRow]) -> list[ScoreRow]:
    """Return a metric's rows; refuse one that no table would know how to show."""
    known = [one.name for one in metric.quantities]
    for row in rows:
        if row.metric not in known:
            raise DataError(f"metric {type(metric).__name__} gave a row of {row.metric!r}, its quantities are {known}")
    return rows
