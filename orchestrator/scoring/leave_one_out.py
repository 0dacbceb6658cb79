"""The correlation with leave-one-out effects that the sweep measured."""

from __future__ import annotations

import numpy as np

from estimators.retraining_based.leave_one_out import measured_effects
from estimators.scores import Score, loo_correlation
from orchestrator.attribution.evidence import load_runs
from orchestrator.scoring.table import Judged
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep


def leave_one_out(sweep: Sweep, store: RunStore, judged: Judged, design: str) -> Score | None:
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
