import numpy as np
import pytest

from estimators.contract import Evidence, Runs
from estimators.datamodel import DatamodelEstimator
from workers.errors import ConfigError


def evidence_of(m: int, n: int, t: int, seeds: int = 2) -> tuple[Evidence, np.ndarray]:
    rng = np.random.default_rng(0)
    masks = np.repeat(rng.random((m, n)) < 0.5, seeds, axis=0)
    weights = np.zeros((n, t))
    weights[:4] = rng.normal(size=(4, t)) + 2
    outputs = masks @ weights + 3 + 0.1 * rng.normal(size=(m * seeds, t))
    runs = Runs(
        "random half", "subsets", "margin", masks, outputs.astype(np.float32),
        np.repeat(np.arange(m), seeds), np.tile(np.arange(seeds), m),
    )  # fmt: skip
    return Evidence(n, t, "margin", {"random half": runs}, seed=7), weights


def test_it_recovers_sparse_weights_and_their_bias():
    evidence, weights = evidence_of(200, 30, 3)
    got = DatamodelEstimator().attribute(evidence)
    assert got.values.shape == (30, 3)
    assert got.values.dtype == np.float32
    assert np.abs(got.values - weights).max() < 0.1
    assert got.bias is not None
    assert np.abs(got.bias - 3).max() < 0.2
    assert got.fitted_on == ("random half",)
    assert got.models == 400


def test_it_says_which_design_it_misses():
    evidence, _ = evidence_of(20, 5, 1)
    with pytest.raises(ConfigError, match="random half"):
        DatamodelEstimator(design="other").attribute(evidence)
