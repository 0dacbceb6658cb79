"""What an estimator may know of a sweep before anything is trained."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from estimators.contract import Evidence
from orchestrator.sweep import Sweep


def no_runs_yet(sweep: Sweep, measure: str) -> Evidence:
    """Return the evidence that the task alone gives, for one measure."""
    return Evidence(
        n=sweep.task.n,
        t=sweep.t,
        measure=measure,
        task=sweep.task,
        queries=sweep.queries,
        seed=sweep.config.seed,
        empty=empty_outputs(sweep, measure),
    )


def empty_outputs(sweep: Sweep, measure: str) -> NDArray[np.float32] | None:
    """Return the outputs (t,) of a model of no data, where the task tells them (`measure_empty`)."""
    hook = getattr(sweep.task, "measure_empty", None)
    if hook is None or measure not in (told := hook()):
        return None
    return np.asarray(told[measure], dtype=np.float32)[sweep.queries.take(len(told[measure]))]
