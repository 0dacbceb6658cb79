"""The linear datamodeling score, on the sweep's held-out runs."""

from __future__ import annotations

import math

import numpy as np

from estimators.evidence import Runs
from estimators.scores import refuse_overlap, seed_check
from orchestrator.attribution.evidence import heldout, load_runs
from orchestrator.scoring.table import Judged, ScoreRow
from orchestrator.store import accounting
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.roles import fresh_design
from orchestrator.sweeps.sweep import Sweep
from workers.errors import DataError

BLOCK = 16384
"""Rows of masks that are looked at together."""


def refuse_fitted(store: RunStore, judged: Judged, runs: Runs) -> None:
    """Enforce that nothing is scored on what it was fitted on: neither the design nor any of its subsets."""
    if runs.design in judged.fitted_on:
        raise DataError(f"{judged.label}: was fitted on design {runs.design!r} and cannot be scored on it")
    for name in judged.fitted_on:
        last = store.designs[name].runs
        for start in range(0, last, BLOCK):
            refuse_overlap(store.masks(name, start, min(start + BLOCK, last)), runs.masks)


def check_seeds(sweep: Sweep, store: RunStore) -> list[ScoreRow]:
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
    row = ScoreRow(
        estimator="retraining",
        metric="seed_check",
        value=single.measured,
        low=single.predicted + single.low,
        high=single.predicted + single.high,
        ceiling=single.predicted,
        measure=measure,
        design=fresh,
        queries=sweep.t,
        subsets=found.subsets,
        seeds=found.fresh_seeds,
        train_seconds=accounting.train_seconds(store, [fresh]),
        attribute_seconds=math.nan,
    )
    return [row]
