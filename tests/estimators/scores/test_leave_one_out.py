"""Leave-one-out correlation against SciPy and NumPy."""

import numpy as np
import pytest
from scipy import stats

from estimators.scores import loo_correlation
from estimators.scores.bootstrap import Resamples
from workers.errors import DataError

RNG = np.random.default_rng(0)
TAU = RNG.normal(size=(20, 4)).astype(np.float32)
EXAMPLES = np.array([3, 0, 17, 8, 9, 12, 5])
EFFECTS = TAU[EXAMPLES] + 0.5 * RNG.normal(size=(7, 4))


def test_equals_scipy_query_by_query():
    score = loo_correlation(TAU, EFFECTS, EXAMPLES, n=20, resamples=0, seeds=3)
    expected = [stats.spearmanr(TAU[EXAMPLES, q], EFFECTS[:, q]).statistic for q in range(4)]
    np.testing.assert_allclose(score.per_query, expected, atol=1e-12)
    assert score.value == pytest.approx(np.mean(expected))
    assert score.details["pearson"] == pytest.approx(
        np.mean([np.corrcoef(TAU[EXAMPLES, q].astype(float), EFFECTS[:, q])[0, 1] for q in range(4)]), abs=1e-12
    )
    assert (score.metric, score.queries, score.subsets, score.seeds) == ("loo", 4, 7, 3)


def test_interval_equals_a_brute_force_bootstrap_over_examples_and_queries():
    drawn = Resamples.draw(7, 4, 60, seed=2)
    values = []
    for rows, queries in zip(drawn.rows[1:], drawn.queries[1:], strict=True):
        k = np.repeat(np.arange(7), rows)
        per_query = [
            0.0 if len(set(k)) == 1 else stats.spearmanr(TAU[EXAMPLES][k, q], EFFECTS[k, q]).statistic
            for q in np.repeat(np.arange(4), queries)
        ]
        values.append(np.mean(per_query))
    score = loo_correlation(TAU, EFFECTS, EXAMPLES, n=20, resamples=60, seed=2)
    expected = np.quantile(values, [0.025, 0.975]) - np.mean(values) + score.value
    np.testing.assert_allclose([score.low, score.high], np.clip(expected, -1, 1), atol=1e-12)


def test_a_constant_attribution_has_correlation_zero():
    score = loo_correlation(np.ones((20, 4)), EFFECTS, EXAMPLES, n=20, resamples=10)
    assert (score.value, score.low, score.high, score.details["pearson"]) == (0, 0, 0, 0)
    assert score.basis.constant_predictions == 4


def test_a_constant_column_is_none_of_the_others_business():
    tau, effects = TAU.copy(), EFFECTS.copy()
    tau[:, 1], effects[:, 2] = 2.5, -1
    score = loo_correlation(tau, effects, EXAMPLES, n=20, resamples=0)
    spearmans, pearsons = (
        [0.0 if q in (1, 2) else of(TAU[EXAMPLES, q].astype(float), EFFECTS[:, q]).statistic for q in range(4)]
        for of in (stats.spearmanr, stats.pearsonr)
    )
    np.testing.assert_allclose(score.per_query, spearmans, atol=1e-12)
    assert score.details == {"pearson": pytest.approx(np.mean(pearsons))}
    assert (score.basis.constant_predictions, score.basis.constant_outputs, score.seeds) == (1, 1, 0)


@pytest.mark.parametrize(
    ("effects", "examples", "message"),
    [
        (EFFECTS, EXAMPLES[:5], "expected \\(5, t\\)"),
        (EFFECTS[:, 0], EXAMPLES, "have shape \\(7,\\), expected \\(7, t\\)"),
        (EFFECTS, EXAMPLES - 1, "different and in 0..19"),
        (EFFECTS, EXAMPLES + 3, "different and in 0..19"),
        (EFFECTS[:1], EXAMPLES[:1], "at least 2 examples, found 1"),
        (EFFECTS, np.zeros(7, int), "different and in 0..19"),
        (EFFECTS, EXAMPLES + 5, "different and in 0..19"),
        (np.where(EFFECTS[0, 0] == EFFECTS, np.nan, EFFECTS), EXAMPLES, "1 of the 28 .* not finite"),
        (EFFECTS[:, :3], EXAMPLES, "expected \\(20, 3\\)"),
    ],
)
def test_what_does_not_fit_is_refused(effects, examples, message):
    with pytest.raises(DataError, match=message):
        loo_correlation(TAU, effects, examples, n=20)
