"""Stage four: judge every attribution by runs it was not fitted on."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from estimators.scores import judge_array, lds
from orchestrator.applications.brittleness import removal_rows
from orchestrator.attribution.evidence import heldout
from orchestrator.scoring.detection import detection
from orchestrator.scoring.lds import check_seeds, refuse_fitted
from orchestrator.scoring.leave_one_out import leave_one_out
from orchestrator.scoring.table import Judged, ScoreRow, as_table, write_scores
from orchestrator.store.attributions import list_attributions, read_attribution, read_utility
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.roles import scoring_design
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, DataError, near


def score(sweep: Sweep, store: RunStore) -> pd.DataFrame:
    """Score every stored attribution of the configuration and write scores.parquet; return the tidy table."""
    rows: list[ScoreRow] = []
    stored = list_attributions(sweep.paths)
    for label in sweep.config.estimators:
        if label not in stored:
            continue
        values, _, _, attributes = read_attribution(sweep.paths, label)
        judged = Judged(
            label,
            values,
            attributes["measure"],
            attributes["train_seconds"],
            attributes["seconds"],
            tuple(attributes["fitted_on"]),
            read_utility(sweep.paths, label)[0],
        )
        rows += _judge(sweep, store, judged)
    rows += check_seeds(sweep, store)
    rows += removal_rows(sweep)
    return write_scores(sweep.paths.scores, rows)


def judge(sweep: Sweep, store: RunStore, path: Path, measure: str | None = None) -> pd.DataFrame:
    """Score anybody's attribution, a .npy file (n, t); stores nothing. What it was fitted on, only its maker knows."""
    measure = measure or sweep.config.measures[0]
    if measure not in sweep.config.measures:
        raise ConfigError(
            f"--measure {measure!r} is not recorded in this sweep: {near(measure, list(sweep.config.measures))}"
        )
    values = judge_array(path, sweep.task.n, sweep.t)
    rows = _judge(sweep, store, Judged(path.stem, values, measure, math.nan, math.nan, ()))
    if not rows:
        raise DataError(f"{sweep.paths.root}: has no finished scoring runs to judge {path} by")
    return as_table(rows)


def _judge(sweep: Sweep, store: RunStore, judged: Judged) -> list[ScoreRow]:
    rows = []
    runs = heldout(sweep, store, judged.measure)
    if runs is not None and sweep.config.scores.lds is not None:
        refuse_fitted(store, judged, runs)
        found = lds(judged.values, runs, resamples=sweep.config.scores.lds.resamples, seed=sweep.config.seed)
        rows.append(ScoreRow.of(judged, found, "lds", runs.design))
    design = scoring_design(sweep.config, "loo")
    if design is not None and sweep.config.scores.loo is not None and design not in judged.fitted_on:
        found_loo = leave_one_out(sweep, store, judged, design)
        if found_loo is not None:
            rows.append(ScoreRow.of(judged, found_loo, "loo_correlation", design))
    return rows + detection(sweep, judged)
