"""The calibration of an attribution's scale against simulated truth: what the slope is, and that its interval covers it."""

import numpy as np
import pytest
from scipy import stats

from estimators.scores import calibration
from estimators.scores.bootstrap import Resamples
from tests.estimators.scores.simulations import make_runs
from workers.errors import DataError


def world(seed=0, s=100, n=40, t=20, seeds=2, noise=1.0):
    """Effects tau (n, t) and runs of Bernoulli subsets whose outputs are their sums, and noise of every seed."""
    rng = np.random.default_rng(seed)
    tau, masks = rng.normal(size=(n, t)), rng.random((s, n)) < 0.5
    outputs = (masks @ tau)[:, None] + noise * np.sqrt(n / 4) * rng.normal(size=(s, seeds, t))
    return tau, make_runs(masks, outputs, kind="bernoulli")


@pytest.mark.parametrize("factor", [1.0, 0.5, 1e7, -2.0])
def test_the_slope_is_what_the_scale_is_off_by(factor):
    tau, runs = world(s=400, noise=0.2)
    found = calibration(factor * tau, runs, resamples=200)
    assert found.slope.value == pytest.approx(1 / factor, rel=0.03)
    assert found.slope.low < found.slope.value < found.slope.high
    explained = 1 - ((1 - factor) ** 2 + 0.02) / 1.02  # noise of two seeds adds 0.04 / 2 to a variance of 1
    assert found.explained.value == pytest.approx(explained, rel=0.05)


def test_it_is_least_squares_over_all_queries():
    tau, runs = world(s=30, t=4, seeds=3)
    found = calibration(tau, runs, resamples=10)
    masks, outputs = runs.means()
    p, y = (x - x.mean(axis=0) for x in (masks @ tau, outputs))
    assert found.slope.value == pytest.approx(np.linalg.lstsq(p.reshape(-1, 1), y.ravel(), rcond=None)[0][0])
    assert found.explained.value == pytest.approx(1 - np.square(y - p).sum() / np.square(y).sum())
    each = [stats.linregress(p[:, q], y[:, q]).slope for q in range(4)]
    np.testing.assert_allclose(found.slope.per_query, each)
    small = calibration(1e-3 * tau, runs.with_outputs(1e-3 * runs.outputs), resamples=10)
    np.testing.assert_allclose(small.slope.per_query, each, rtol=1e-5)
    np.testing.assert_allclose(small.slope.resampled, found.slope.resampled, rtol=1e-5)
    np.testing.assert_allclose(found.explained.per_query, 1 - np.square(y - p).sum(axis=0) / np.square(y).sum(axis=0))


def test_the_intervals_equal_a_brute_force_bootstrap_of_the_same_resamples():
    tau, runs = world(s=8, t=4)
    drawn, (masks, outputs) = Resamples.draw(8, 4, 30, seed=5), runs.means()
    slopes, explained = [], []
    for rows, queries in zip(drawn.rows[1:], drawn.queries[1:], strict=True):
        taken, q = np.repeat(np.arange(8), rows), np.repeat(np.arange(4), queries)
        p, y = ((x - x.mean(axis=0))[:, q] for x in ((masks @ tau)[taken], outputs[taken]))
        slopes.append((p * y).sum() / np.square(p).sum())
        explained.append(1 - np.square(y - p).sum() / np.square(y).sum())
    found = calibration(tau, runs, resamples=30, seed=5, level=0.8)
    for one, values, name in ((found.slope, slopes, "slope"), (found.explained, explained, "explained_variance")):
        ends = np.quantile(values, [0.1, 0.9]) - np.mean(values) + one.value
        np.testing.assert_allclose([one.low, one.high], ends, rtol=1e-9)
        np.testing.assert_allclose(one.resampled, [one.value, *values], rtol=1e-9)
        assert (one.metric, one.queries, one.subsets, one.seeds) == (name, 4, 8, 2)
        assert np.isnan(one.ceiling)


def test_the_interval_covers_the_slope_of_a_noisy_attribution():
    """tau + error explains less than its size says: the slope is <tau, tau + error> / |tau + error|^2 for coins of a half."""
    covered, trials = 0, 100
    for trial in range(trials):
        tau, runs = world(seed=trial)
        guess = tau + 0.8 * np.random.default_rng([trial, 1]).normal(size=tau.shape)
        truth = (tau * guess).sum() / np.square(guess).sum()
        found = calibration(guess, runs, resamples=200).slope
        covered += found.low <= truth <= found.high
    assert covered >= stats.binom.ppf(0.002, trials, 0.93)


def test_what_has_nothing_to_do_with_the_outputs_has_no_slope_and_explains_less_than_nothing():
    covered, trials = 0, 60
    for trial in range(trials):
        _, runs = world(seed=trial)
        found = calibration(np.random.default_rng([trial, 2]).normal(size=(40, 20)), runs, resamples=200)
        covered += found.slope.low <= 0 <= found.slope.high
        assert found.explained.value < 0
    assert covered >= stats.binom.ppf(0.002, trials, 0.9)


def test_queries_that_are_predicted_alike_are_left_out_of_the_slope_and_counted():
    tau, runs = world(t=4)
    some = tau.copy()
    some[:, 1] = 0
    found = calibration(some, runs, resamples=20)
    kept = calibration(tau[:, [0, 2, 3]], runs.with_outputs(runs.outputs[:, [0, 2, 3]]), resamples=20)
    assert found.slope.value == pytest.approx(kept.slope.value)
    assert (found.slope.queries, found.slope.basis.queries_left_out, found.slope.basis.constant_predictions) == (
        3,
        1,
        1,
    )
    assert (found.explained.queries, found.explained.basis.queries_left_out) == (4, 0)
    assert np.isnan(found.slope.per_query[1])
    nothing = calibration(0 * tau, runs, resamples=20)
    assert np.isnan([nothing.slope.value, nothing.slope.low, nothing.slope.high]).all()
    assert nothing.explained.value == 0
    still = calibration(tau, runs.with_outputs(np.ones_like(runs.outputs)), resamples=20)
    assert still.slope.value == 0
    assert np.isnan([still.explained.value, *still.explained.per_query]).all()


def test_it_is_never_judged_on_what_it_was_fitted_on():
    tau, runs = world(s=10)
    with pytest.raises(DataError, match="fitted on"):
        calibration(tau, runs, fitted_masks=runs.masks[:2])


def test_one_subset_has_no_slope():
    tau, runs = world(s=1)
    with pytest.raises(DataError, match=r"^a slope needs at least 2 subsets, 'holdout' has 1"):
        calibration(tau, runs)
