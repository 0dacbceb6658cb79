from dataclasses import replace

import numpy as np
import pytest

from estimators.lasso.learning_curve import ResampledCurve, learning_curve
from estimators.lasso.settings import Settings
from workers.errors import DataError


def curve_of(runs, ceiling, half, noise, seed=0, rate=1.0):
    runs = np.array(runs)
    rng = np.random.default_rng(seed)
    truth = np.sqrt(ceiling**2 * runs**rate / (runs**rate + half**rate))
    point = truth + noise * rng.normal(size=len(runs))
    return ResampledCurve(runs, point, point + noise * rng.normal(size=(200, len(runs))))


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_a_curve_without_noise_is_continued_exactly(rate):
    curve = curve_of([250, 500, 1000, 2000], 0.6, 800, 0.0, rate=rate)
    expected, low, high = curve.extrapolate(8000)
    truth = np.sqrt(0.36 * 8000**rate / (8000**rate + 800**rate))
    np.testing.assert_allclose([expected, low, high], truth, atol=5e-3)
    np.testing.assert_allclose(curve.ceiling()[0], 0.6, atol=2e-2)


def test_the_interval_covers_the_truth_and_grows_with_the_distance():
    covered = 0
    for seed in range(20):
        curve = curve_of([250, 500, 1000, 2000], 0.6, 800, 0.01, seed)
        value, low, high = curve.extrapolate(6000)
        near, far = curve.extrapolate(2500)[1:], curve.extrapolate(60_000)[1:]
        assert low <= value <= high
        assert far[1] - far[0] > near[1] - near[0]
        covered += low <= np.sqrt(0.36 * 6000 / 6800) <= high
    assert covered >= 18


def test_more_runs_are_measured_and_forecast_to_help():
    rng = np.random.default_rng(0)
    masks = (rng.random((600, 40)) < 0.5).repeat(2, axis=0)
    weights = rng.normal(size=(40, 12)) * (rng.random((40, 12)) < 0.5)
    outputs = masks @ weights + 4 * rng.normal(size=(1200, 12))
    subsets = np.arange(600).repeat(2)
    curve = learning_curve(masks, outputs, subsets, Settings(threads=1), 0, resamples=50)
    assert curve.runs.tolist() == [128, 256, 510, 764, 1020]
    assert curve.correlations[-1] > curve.correlations[0]
    assert "another 4,000 runs" in curve.sentence(4000)
    assert curve.extrapolate(5000)[0] >= curve.extrapolate(1020)[0] > 0


def test_the_gain_is_the_ratio_of_the_curve_and_what_is_kept_begins_where_it_was_measured():
    curve = replace(curve_of([250, 500, 1000, 2000], 0.6, 800, 0.005), total=2350)
    value, low, high = curve.gain(2000)
    truth = np.sqrt((4350 / 5150) / (2350 / 3150))
    assert 1 <= low <= value <= high
    assert low <= truth <= high
    told = curve.told()
    assert (told.more, told.ahead[0], told.ahead[-1]) == (2000, 2000, 4000)
    assert told.expected[0, -1] == curve.extrapolate(4000)[0]
    assert told.gain == (value, low, high)
    assert f"to about {curve.extrapolate(4000)[0]:.2f}" in told.sentence


def test_too_few_held_out_subsets_are_refused(problem_of):
    masks, outputs = problem_of(40, 5, 2)
    with pytest.raises(DataError, match="found 6"):
        learning_curve(masks, outputs, np.arange(40), Settings(), 0)


def test_lambda_is_not_chosen_on_what_it_is_scored_on():
    """Outputs that no subset explains are predicted by chance: chosen on the half that is scored, lambda would find some."""
    rng = np.random.default_rng(0)
    masks, outputs = rng.random((300, 30)) < 0.5, rng.normal(size=(300, 400))
    settings = Settings(threads=1, holdout=0.2)
    curve = learning_curve(masks, outputs, np.arange(300), settings, 0, resamples=20)
    standard_error = 1 / np.sqrt(60 * 400)  # of a mean over queries of correlations over 60 subsets
    assert np.abs(curve.correlations).max() < 4 * standard_error
