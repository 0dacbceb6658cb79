"""Resamples, and intervals from them, against their definitions written out."""

import numpy as np
import pytest

from estimators.scores.bootstrap import Resamples, correlation_estimate, difference, estimate
from workers.errors import ConfigError


def test_the_bootstrap_mean_is_that_of_the_queries_taken():
    drawn = Resamples.draw(5, 4, 50, seed=1)
    assert drawn.rows.shape == (51, 5)
    assert (drawn.rows.sum(1) == 5).all()
    assert (drawn.queries.sum(1) == 4).all()
    assert (drawn.rows[0] == 1).all()
    assert (drawn.queries[0] == 1).all()
    values = np.random.default_rng(0).normal(size=(51, 4))
    means = [values[b, np.repeat(np.arange(4), drawn.queries[b])].mean() for b in range(51)]
    found = correlation_estimate(drawn.means(values), 0.9)
    around = np.array(means[1:]) - np.mean(means[1:])
    expected = [means[0], *np.clip(means[0] + np.quantile(around, [0.05, 0.95]), -1, 1)]
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_the_same_seed_draws_the_same_resamples():
    one, two, other = (Resamples.draw(6, 3, 4, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.queries, two.queries)
    assert (one.rows != other.rows).any()


def test_no_resamples_no_interval():
    value, low, high = correlation_estimate(Resamples.draw(6, 3, 0, seed=0).means(np.ones((1, 3))), 0.95)
    assert value == 1
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize(
    ("resamples", "level", "said"),
    [
        (-1, 0.95, r"resamples is -1, expected 0 \(no interval\) or more"),
        (10, 95, "level is 95, expected a number between 0 and 1, such as 0.95"),
        (10, 0, "level is 0, expected"),
        (10, 1, "level is 1, expected"),
    ],
)
def test_senseless_settings_are_refused(resamples, level, said):
    with pytest.raises(ConfigError, match=said):
        correlation_estimate(Resamples.draw(6, 3, resamples, seed=0).means(np.ones((1 + resamples, 3))), level)


def test_rows_and_queries_are_drawn_evenly_and_apart():
    drawn = Resamples.draw(7, 7, 3000, seed=0)
    for counts in (drawn.rows[1:], drawn.queries[1:]):
        assert counts.dtype == np.int64
        np.testing.assert_allclose(counts.mean(axis=0), 1, atol=4 * np.sqrt(6 / 7 / 3000))
        np.testing.assert_allclose(counts.var(axis=0), 6 / 7, rtol=0.2)  # of a multinomial: 1 - 1 / 7
    assert abs(np.corrcoef(drawn.rows[1:, 0], drawn.queries[1:, 0])[0, 1]) < 4 / np.sqrt(3000)


def test_a_correlation_is_within_its_bounds_and_another_statistic_is_not():
    spread = np.array([0.0, 3.0, -3.0])
    for value in (0.0, 0.9, -0.9):
        ends = value + 0.5 * np.array([-3.0, 3.0])
        np.testing.assert_allclose(estimate(value + spread, 0.5), [value, *ends])
        np.testing.assert_allclose(correlation_estimate(value + spread, 0.5), [value, *np.clip(ends, -1, 1)])


def test_a_difference_has_an_interval_of_its_own():
    a, b = np.random.default_rng(0).normal(size=(2, 101))
    assert difference(a, b, 0.8) == estimate(a - b, 0.8)
    assert difference(a, b) == estimate(a - b, 0.95)


def test_a_difference_needs_the_same_resamples():
    with pytest.raises(ConfigError, match="the same resamples of both, found 2 and 1"):
        difference(np.zeros(3), np.zeros(2))
