"""What an attribution predicts of subsets, against sums written out."""

import math

import numpy as np
import pytest

from estimators.scores.predictions import Predictions, predict
from tests.estimators.scores.simulations import make_runs
from workers.errors import DataError

PAIRS = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]], dtype=bool)


@pytest.mark.parametrize("block", [1, 9, 12, 1 << 24])
def test_predictions_are_sums_whatever_is_computed_at_a_time(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("estimators.scores.predictions._BLOCK", block)
    rng = np.random.default_rng(0)
    masks, tau = rng.random((11, 4)) < 0.5, rng.normal(size=(4, 3)).astype(np.float32)
    expected = [[math.fsum(float(tau[i, q]) for i in range(4) if row[i]) for q in range(3)] for row in masks]
    found = predict(masks, tau)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_a_column_that_varies_by_round_off_alone_is_constant() -> None:
    tau = np.array([[0.1, 0.1, 3e-5], [0.2, 0.2, 0.0], [0.3, 0.3, 1e-5], [0.0, 1e-9, 2e-5]])
    masks = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]], dtype=bool)
    assert np.ptp(masks @ tau[:, 0]) > 0, "0.1 + 0.2 is not 0.3"
    found = predict(masks, tau)
    assert found[:, 0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(found[:, 1:], masks @ tau[:, 1:], rtol=0, atol=1e-17)
    assert predict(masks, 0 * tau).tolist() == [[0.0] * 3] * 3


def test_what_is_compared_stands_on_the_runs() -> None:
    tau = np.array([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0], [8.0, 0.0]])
    outputs = np.arange(16.0).reshape(4, 2, 2)
    found = Predictions.of(tau, make_runs(PAIRS, outputs, order="own"), "this", planned=6)
    assert found.predicted.tolist() == [[3, 0], [12, 0], [5, 0], [10, 0]]
    assert found.measured.tolist() == outputs.mean(axis=1).tolist()
    basis = found.basis
    assert (basis.alpha, basis.order, basis.subsets_left_out, basis.subsets_with_fewer_seeds) == (0.5, "own", 2, 0)
    assert (basis.queries_left_out, basis.constant_predictions, basis.constant_outputs) == (0, 1, 0)


def test_what_cannot_be_compared_is_refused() -> None:
    tau, runs = np.ones((4, 2)), make_runs(PAIRS, np.zeros((4, 1, 2)))
    with pytest.raises(DataError, match="1 of the 4 scoring subsets were also fitted on"):
        Predictions.of(tau, runs, "this", fitted_masks=PAIRS[:1])
    with pytest.raises(DataError, match=r"^this needs at least 2 subsets, 'holdout' has 1 with a finished run$"):
        Predictions.of(tau, make_runs(PAIRS[:1], np.zeros((1, 3, 2))), "this")
    assert len(Predictions.of(tau, make_runs(PAIRS[:2], np.zeros((2, 1, 2))), "this").measured) == 2
