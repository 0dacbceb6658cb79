"""The utility of a subset: the measure's mean over the queries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs


def utility_of(outputs: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return (m, 1): the mean over the queries of outputs (m, t), so that a utility is valued as one more query is."""
    mean: NDArray[np.float64] = outputs.mean(axis=1, keepdims=True, dtype=np.float64)
    return mean


def utility_runs(runs: Runs) -> Runs:
    """Return the same runs seen through their utility: outputs (m, 1)."""
    return runs.with_outputs(utility_of(runs.outputs).astype(np.float32))
