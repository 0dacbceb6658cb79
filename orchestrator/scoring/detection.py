"""How well one number an example finds those that the task mislabelled."""

from __future__ import annotations

import math

from estimators.scores import auc
from estimators.scores.per_example import Valued
from orchestrator.scoring.metric import Metric, Quantity
from orchestrator.scoring.table import Judged, ScoreRow
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.task_record import read_record

DETECTION = Quantity("detection_auc", "finding the mislabelled examples, area under the ROC curve")


class Detection(Metric):
    """The area under the ROC curve of what an attribution says of each example, for those that the task mislabelled."""

    quantities = (DETECTION,)
    place = 40

    def judge(self, sweep: Sweep, store: RunStore, judged: Judged) -> list[ScoreRow]:
        """Say how well one number an example finds those that the task mislabelled, where there are some."""
        section, wrong = sweep.config.scores.detection, read_record(sweep).examples.mislabelled
        if section is None or wrong is None:
            return []
        valued = Valued(judged.values, judged.utility, judged.measure, sweep.queries)
        examples, suspicion = valued.suspicion(section.better)
        if wrong[examples].all() or not wrong[examples].any():
            return []
        value, low, high = auc(suspicion, wrong[examples])
        row = ScoreRow(
            estimator=judged.label,
            metric=DETECTION.name,
            value=value,
            low=low,
            high=high,
            ceiling=math.nan,
            measure=judged.measure,
            design="",
            queries=store.t,
            subsets=0,
            seeds=0,
            train_seconds=judged.train_seconds,
            attribute_seconds=judged.attribute_seconds,
        )
        return [row]
