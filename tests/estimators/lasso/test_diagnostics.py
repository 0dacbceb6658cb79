import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import r2_score

from estimators.lasso import diagnostics


def test_they_are_the_textbook_ones_query_by_query(monkeypatch):
    monkeypatch.setattr(diagnostics, "BAND", 3)
    rng = np.random.default_rng(0)
    outputs, predictions = rng.integers(0, 6, (7, 30)).astype(float), rng.normal(size=(7, 30)).round(1)
    predictions += outputs
    outputs[4, 3:9] = np.nan
    for q in range(7):
        there = ~np.isnan(outputs[q])
        y, p = outputs[q, there], predictions[q, there]
        np.testing.assert_allclose(diagnostics.r2(outputs, predictions)[q], r2_score(y, p))
        np.testing.assert_allclose(diagnostics.spearman(outputs, predictions)[q], spearmanr(y, p).statistic)


def test_what_is_constant_has_none():
    outputs = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [2.0, np.nan, np.nan]])
    predictions = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(diagnostics.spearman(outputs, predictions), [np.nan] * 3)
    assert np.isnan(diagnostics.r2(outputs, predictions)[[0, 2]]).all()


def test_resamples_are_ranked_anew_without_the_runs_that_lack():
    rng = np.random.default_rng(1)
    outputs, predictions = rng.integers(0, 9, (4, 25)).astype(float), rng.normal(size=(4, 25))
    predictions += outputs
    outputs[1, :6], outputs[2], predictions[3] = np.nan, np.nan, 1.0
    counts = np.array([np.bincount(rng.integers(25, size=25), minlength=25) for _ in range(5)])
    found = diagnostics.resampled_spearman(outputs, predictions, counts)
    for row, count in zip(found, counts, strict=True):
        for q, kept in ((0, np.ones(25, bool)), (1, ~np.isnan(outputs[1]))):
            y, p = (values[q, kept].repeat(count[kept]) for values in (outputs, predictions))
            np.testing.assert_allclose(row[q], spearmanr(y, p).statistic)
    assert (found[:, 2:] == 0).all(), "no output, and a constant prediction"
