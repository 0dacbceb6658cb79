"""Stage four: judge every attribution by runs it was not fitted on."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from estimators.evidence import Runs
from estimators.leave_one_out import measured_effects
from estimators.scores import Score, auc, judge_array, lds, loo_correlation, refuse_overlap, seed_check
from orchestrator.attribution.evidence import heldout, load_runs
from orchestrator.examples import Valued, flipped
from orchestrator.removal import ANY, read_curves
from orchestrator.report.data import SCORE_COLUMNS
from orchestrator.store import accounting
from orchestrator.store.attributions import list_attributions, read_attribution, read_utility
from orchestrator.store.durable import write_atomically
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.roles import fresh_design, scoring_design
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, DataError, near

BLOCK = 16384
"""Rows of masks that are looked at together."""


@dataclass(frozen=True)
class Judged:
    """One attribution on its way to be scored."""

    label: str
    values: NDArray[np.floating]
    """(n, t)"""
    measure: str
    train_seconds: float
    attribute_seconds: float
    fitted_on: tuple[str, ...]
    utility: NDArray[np.floating] | None = None
    """(n,)"""


def score(sweep: Sweep, store: RunStore) -> pd.DataFrame:
    """Score every stored attribution of the configuration and write scores.parquet; return the tidy table."""
    rows: list[dict[str, Any]] = []
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
    rows += _check_seeds(sweep, store)
    rows += _removal(sweep)
    table = pd.DataFrame(rows, columns=SCORE_COLUMNS)
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_atomically(sweep.paths.scores, buffer.getvalue())
    return table


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
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def _judge(sweep: Sweep, store: RunStore, judged: Judged) -> list[dict[str, Any]]:
    rows = []
    runs = heldout(sweep, store, judged.measure)
    if runs is not None and sweep.config.scores.lds is not None:
        _refuse_fitted(store, judged, runs)
        found = lds(judged.values, runs, resamples=sweep.config.scores.lds.resamples, seed=sweep.config.seed)
        rows.append(_row(judged, found, "lds", runs.design))
    design = scoring_design(sweep.config, "loo")
    if design is not None and sweep.config.scores.loo is not None and design not in judged.fitted_on:
        found_loo = _loo(sweep, store, judged, design)
        if found_loo is not None:
            rows.append(_row(judged, found_loo, "loo_correlation", design))
    return rows + _detection(sweep, judged)


def _detection(sweep: Sweep, judged: Judged) -> list[dict[str, Any]]:
    """Say how well one number an example finds those that the task mislabelled, where there are some."""
    section, wrong = sweep.config.scores.detection, flipped(sweep.task)
    if section is None or wrong is None:
        return []
    valued = Valued(judged.values, judged.utility, judged.measure, sweep.queries)
    examples, suspicion = valued.suspicion(section.better)
    if wrong[examples].all() or not wrong[examples].any():
        return []
    value, low, high = auc(suspicion, wrong[examples])
    row = {
        "estimator": judged.label,
        "metric": "detection_auc",
        "value": value,
        "low": low,
        "high": high,
        "ceiling": math.nan,
        "measure": judged.measure,
        "design": "",
        "queries": sweep.t,
        "subsets": 0,
        "seeds": 0,
        "train_seconds": judged.train_seconds,
        "attribute_seconds": judged.attribute_seconds,
    }
    return [row]


def _removal(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the areas under the finished removal curves; the random order's curve stands for either order."""
    rows: list[dict[str, Any]] = []
    section = sweep.config.scores.removal
    for one in read_curves(sweep):
        value, low, high = one.curve.area
        common = {
            "value": value,
            "low": low,
            "high": high,
            "ceiling": math.nan,
            "measure": one.measure,
            "design": one.order,
            "queries": sweep.t,
            "subsets": len(one.curve.removed),
            "seeds": one.seeds,
            "train_seconds": one.train_seconds,
            "attribute_seconds": math.nan,
        }
        orders = section.order if section is not None and one.order == ANY else (one.order,)
        rows += [{"estimator": one.estimator, "metric": f"removal_{order}_area", **common} for order in orders]
    return rows


def _refuse_fitted(store: RunStore, judged: Judged, runs: Runs) -> None:
    """Enforce that nothing is scored on what it was fitted on: neither the design nor any of its subsets."""
    if runs.design in judged.fitted_on:
        raise DataError(f"{judged.label}: was fitted on design {runs.design!r} and cannot be scored on it")
    for name in judged.fitted_on:
        last = store.designs[name].runs
        for start in range(0, last, BLOCK):
            refuse_overlap(store.masks(name, start, min(start + BLOCK, last)), runs.masks)


def _loo(sweep: Sweep, store: RunStore, judged: Judged, design: str) -> Score | None:
    """Correlate with leave-one-out effects, where their runs and full runs are finished."""
    full = [name for name, layout in store.designs.items() if layout.kind == "full"]
    paired = sweep.config.designs[design].paired_with
    reference = paired if paired in full else (full[0] if full else None)
    if reference is None or sweep.config.scores.loo is None:
        return None
    left_out, whole = (
        load_runs(sweep, store, design, judged.measure),
        load_runs(sweep, store, reference, judged.measure),
    )
    if len(np.unique(left_out.subsets)) < 2 or not len(whole.masks):
        return None
    effects = measured_effects(left_out, whole)
    return loo_correlation(
        judged.values,
        effects.values,
        effects.examples,
        n=sweep.task.n,
        resamples=sweep.config.scores.loo.resamples,
        seed=sweep.config.seed,
        seeds=sweep.config.designs[design].seeds,
    )


def _check_seeds(sweep: Sweep, store: RunStore) -> list[dict[str, Any]]:
    """Hold the noise ceiling against fresh seeds on the same subsets: what one of them reaches, and what was predicted."""
    fresh = fresh_design(sweep.config)
    measure = sweep.config.measures[0]
    runs = heldout(sweep, store, measure)
    if fresh is None or runs is None or sweep.config.scores.lds is None:
        return []
    again = load_runs(sweep, store, fresh, measure)
    if len(np.unique(again.subsets)) < 2 or len(np.unique(runs.repeats)) < 2:
        return []
    found = seed_check(runs, again, resamples=sweep.config.scores.lds.resamples, seed=sweep.config.seed)
    single = found.single
    row = {
        "estimator": "retraining",
        "metric": "seed_check",
        "value": single.measured,
        "low": single.predicted + single.low,
        "high": single.predicted + single.high,
        "ceiling": single.predicted,
        "measure": measure,
        "design": fresh,
        "queries": sweep.t,
        "subsets": found.subsets,
        "seeds": found.fresh_seeds,
        "train_seconds": accounting.train_seconds(store, [fresh]),
        "attribute_seconds": math.nan,
    }
    return [row]


def _row(judged: Judged, found: Score, metric: str, design: str) -> dict[str, Any]:
    return {
        "estimator": judged.label,
        "metric": metric,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "ceiling": found.ceiling,
        "measure": judged.measure,
        "design": design,
        "queries": found.queries,
        "subsets": found.subsets,
        "seeds": found.seeds,
        "train_seconds": judged.train_seconds,
        "attribute_seconds": judged.attribute_seconds,
    }
