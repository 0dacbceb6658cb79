"""How well one number an example finds those that the task mislabelled."""

from __future__ import annotations

import math

from estimators.scores import auc
from estimators.scores.per_example import Valued
from orchestrator.scoring.table import Judged, ScoreRow
from orchestrator.sweeps.sweep import Sweep
from workers.task_hooks import mislabelled


def detection(sweep: Sweep, judged: Judged) -> list[ScoreRow]:
    """Say how well one number an example finds those that the task mislabelled, where there are some."""
    section, wrong = sweep.config.scores.detection, mislabelled(sweep.task)
    if section is None or wrong is None:
        return []
    valued = Valued(judged.values, judged.utility, judged.measure, sweep.queries)
    examples, suspicion = valued.suspicion(section.better)
    if wrong[examples].all() or not wrong[examples].any():
        return []
    value, low, high = auc(suspicion, wrong[examples])
    row = ScoreRow(
        estimator=judged.label,
        metric="detection_auc",
        value=value,
        low=low,
        high=high,
        ceiling=math.nan,
        measure=judged.measure,
        design="",
        queries=sweep.t,
        subsets=0,
        seeds=0,
        train_seconds=judged.train_seconds,
        attribute_seconds=judged.attribute_seconds,
    )
    return [row]
