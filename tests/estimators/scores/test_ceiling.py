"""The ceiling's formula against simulations whose signal and noise are known."""

import numpy as np
import pytest

from estimators.scores import lds, noise_ceiling
from estimators.scores.agreement import Law
from estimators.scores.deconvolution import deconvolve
from estimators.scores.jackknife import Jackknife
from estimators.scores.spearman import spearman
from tests.estimators.scores.simulations import additive_world as world
from tests.estimators.scores.simulations import make_runs, take


def test_a_perfect_predictor_reaches_the_ceiling():
    for noise, seeds in [(1.0, 2), (1.0, 5), (3.0, 5)]:
        tau, masks, outputs = world(noise=noise, seeds=seeds)
        score = lds(tau, make_runs(masks, outputs), resamples=200)
        # Pearson's ceiling is sqrt(R / (R + noise^2)); Spearman's lies a little lower.
        assert score.value == pytest.approx(score.ceiling, abs=0.02)
        assert score.low - 0.02 < score.ceiling < score.high + 0.02
        assert score.ceiling == pytest.approx(np.sqrt(seeds / (seeds + noise**2)), abs=0.03)


def test_r_is_the_mean_over_pairs_of_seeds():
    _, masks, outputs = world(s=20, t=4, seeds=3)
    found = noise_ceiling(make_runs(masks, outputs))
    outputs = outputs.astype(np.float32)
    r = np.mean([spearman(outputs[:, a], outputs[:, b]) for a, b in [(0, 1), (0, 2), (1, 2)]], axis=0)
    np.testing.assert_allclose(found.r, r, atol=1e-12)
    np.testing.assert_allclose(found.per_query, np.sqrt(3 * r / (1 + 2 * r)), atol=1e-12)
    assert (found.seeds, found.subsets, found.reason) == (3, 20, "")
    assert found.compared.tolist() == list(range(20))
    left_out = [noise_ceiling(make_runs(*(np.delete(x, one, axis=0) for x in (masks, outputs)))).r for one in range(20)]
    np.testing.assert_allclose(found.left_out, [r, *left_out], atol=1e-12)


def test_queries_that_agree_less_than_by_chance_say_nothing_for_themselves():
    _, masks, outputs = world(s=20, t=30, seeds=2, noise=1e6)
    found = noise_ceiling(make_runs(masks, outputs))
    assert (found.r < 0).any()
    assert ((found.per_query == 0) == (found.r <= 0)).all()


def test_the_interval_is_the_deconvolutions_and_wider_at_a_higher_level():
    _, masks, outputs = world(s=40, t=8, seeds=2)
    runs = make_runs(masks, outputs)
    found, r = noise_ceiling(runs, level=0.8), noise_ceiling(runs).left_out
    error = np.sqrt(Jackknife.of(40).covariance(r, r))
    expected = deconvolve(r[0], Law.of(40, 2), lambda one: np.sqrt(2 * one / (1 + one)), error, 0.8)
    np.testing.assert_allclose(found.estimate, expected, atol=1e-12)
    assert found.low > noise_ceiling(runs).low
    assert noise_ceiling(runs).estimate == noise_ceiling(runs, level=0.95).estimate


def test_interval_holds_the_value_and_narrows_with_subsets():
    widths = []
    for s in (50, 800):
        _, masks, outputs = world(s=s, t=8, seeds=3)
        found = noise_ceiling(make_runs(masks, outputs))
        assert found.low < found.value < found.high
        assert not found.nothing_to_find
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_no_noise_reaches_one():
    _, masks, outputs = world(noise=0, seeds=2)
    found = noise_ceiling(make_runs(masks, outputs))
    assert found.value == pytest.approx(1, abs=2e-3)
    assert found.low > 0.99


def test_one_seed_gives_no_ceiling_and_a_reason():
    _, masks, outputs = world(s=10, t=3, seeds=1)
    found = noise_ceiling(make_runs(masks, outputs))
    assert np.isnan([found.value, found.low, found.high, *found.per_query, *found.r]).all()
    assert found.reason == "needs 5 subsets with 2 seeds each, 'holdout' has 0"
    assert not found.nothing_to_find
    assert (found.seeds, found.subsets, found.compared.shape, found.left_out.shape) == (1, 0, (0,), (0, 0))
    assert found.per_query.shape == found.r.shape == (3,)


def test_four_subsets_are_too_few_and_five_are_not():
    _, masks, outputs = world(s=5, t=3, seeds=2)
    runs = make_runs(masks, outputs)
    few = noise_ceiling(take(runs, np.arange(9)))
    assert few.reason == "needs 5 subsets with 2 seeds each, 'holdout' has 4"
    assert few.seeds == pytest.approx(5 / (4 / 2 + 1))
    assert noise_ceiling(runs).reason == ""


def test_uneven_seeds_use_the_largest_complete_block():
    _, masks, outputs = world(s=30, t=4, seeds=3)
    runs = make_runs(masks, outputs)
    # Subset 0 keeps one run, subset 1 loses its first.
    uneven = take(runs, np.flatnonzero(~np.isin(np.arange(90), [0, 1, 3])))
    found = noise_ceiling(uneven)
    complete = noise_ceiling(take(runs, np.flatnonzero(runs.subsets > 1)))
    np.testing.assert_allclose(found.r, complete.r, atol=1e-12)
    assert (found.subsets, found.compared.tolist()) == (28, list(range(2, 30)))
    assert found.seeds == pytest.approx(30 / (28 / 3 + 1 + 1 / 2))


def test_order_of_runs_does_not_matter():
    _, masks, outputs = world(s=30, t=4, seeds=3)
    runs = make_runs(masks, outputs)
    moved = take(runs, np.random.default_rng(0).permutation(90))
    np.testing.assert_array_equal(noise_ceiling(moved).r, noise_ceiling(runs).r)
