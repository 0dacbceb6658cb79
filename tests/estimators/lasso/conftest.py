import numpy as np
import pytest

from estimators.lasso.statistics import Statistics


@pytest.fixture
def problem_of():
    """Make (masks, outputs) with a sparse truth."""

    def make(m: int, n: int, t: int, seed: int = 0, noise: float = 0.5):
        rng = np.random.default_rng(seed)
        masks = rng.random((m, n)) < 0.5
        weights = rng.normal(size=(n, t)) * (rng.random((n, t)) < 0.3)
        return masks, masks @ weights + noise * rng.normal(size=(m, t)) + 2

    return make


@pytest.fixture
def statistics_of():
    """Accumulate runs into statistics, in float64, in blocks."""

    def make(masks, outputs, block: int = 1000, dtype=np.float64):
        statistics = Statistics.empty(masks.shape[1], np.nan_to_num(np.nanmean(outputs, axis=0)))
        for start in range(0, len(masks), block):
            statistics.accumulate(masks[start : start + block], outputs[start : start + block], dtype)
        return statistics

    return make
