"""Area under the ROC curve against scikit-learn, all pairs, and DeLong's definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from estimators.scores import auc
from workers.errors import DataError


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=30))
def test_equals_scikit_learn_and_all_pairs(rows):
    scores, flagged = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    if flagged.all() or not flagged.any():
        return
    value, _, _ = auc(scores, flagged)
    assert value == pytest.approx(roc_auc_score(flagged, scores), abs=1e-12)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[flagged] for b in scores[~flagged]]
    assert value == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auc(-scores, flagged).value == pytest.approx(1 - value, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(60, 18), (5, 2), (7, 5)])
def test_interval_is_delongs(n, m):
    rng = np.random.default_rng(n)
    scores, flagged = rng.normal(size=n).round(1), rng.permutation(n) < m
    scores[flagged] += 0.5
    wins = (scores[flagged][:, None] > scores[~flagged]) + 0.5 * (scores[flagged][:, None] == scores[~flagged])
    m, k = wins.shape
    error = np.sqrt(np.var(wins.mean(1), ddof=1) / m + np.var(wins.mean(0), ddof=1) / k)
    value, low, high = auc(scores, flagged, level=0.9)
    expected = np.clip(value + stats.norm.ppf([0.05, 0.95]) * error, 0, 1)
    np.testing.assert_allclose([low, high], expected, atol=1e-12)


def test_the_interval_covers_the_true_area():
    """Two normals one apart: the area is Phi(1 / sqrt 2)."""
    truth, covered = stats.norm.cdf(1 / np.sqrt(2)), 0
    for trial in range(1000):
        rng = np.random.default_rng(trial)
        flagged = np.arange(150) < 50
        covered += (found := auc(rng.normal(size=150) + flagged, flagged)).low <= truth <= found.high
    assert stats.binom.ppf(0.001, 1000, 0.94) <= covered <= stats.binom.ppf(0.999, 1000, 0.96)


def test_the_interval_stays_within_bounds_and_needs_two_on_each_side():
    assert auc(np.arange(6.0), np.arange(6) > 2) == (1, 1, 1)
    value, low, high = auc(np.arange(4.0), np.array([False, True, False, False]))
    assert value == pytest.approx(1 / 3)
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize(
    ("scores", "flagged", "message"),
    [
        (np.arange(3.0), np.zeros(3, bool), "found 0 and 3"),
        (np.arange(3.0), np.ones(3, bool), "found 3 and 0"),
        (np.arange(3.0), np.ones(3), "flagged \\(n,\\) bool"),
        (np.arange(3.0), np.ones(4, bool), "found \\(3,\\) and \\(4,\\)"),
        (np.array([0, np.nan, 1]), np.array([True, False, True]), "^1 of the 3 scores are not finite"),
    ],
)
def test_what_cannot_be_judged_is_refused(scores, flagged, message):
    with pytest.raises(DataError, match=message):
        auc(scores, flagged)
