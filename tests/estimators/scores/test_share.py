"""The share of the ceiling: its interval, and that it is paired."""

import math

import numpy as np
import pytest
from scipy import stats

from estimators.scores import Estimate, lds, share_of
from tests.estimators.scores.simulations import additive_world, make_runs

SCORE, CEILING = Estimate(0.4, 0.3, 0.5), Estimate(0.5, 0.4, 0.6)


def test_without_correlation_it_is_the_interval_of_a_ratio_of_two_normals():
    """Fieller's: the shares x at which (score - x ceiling)^2 is 1.96^2 times its variance."""
    found = share_of(SCORE, CEILING, 0.0)
    roots = np.roots([CEILING.value**2 - 0.1**2, -2 * SCORE.value * CEILING.value, SCORE.value**2 - 0.1**2])
    assert found.value == pytest.approx(0.8)
    np.testing.assert_allclose([found.low, found.high], sorted(roots), atol=1e-9)


def test_what_moves_both_moves_their_ratio_little():
    apart, together = (share_of(SCORE, CEILING, correlation) for correlation in (0.0, 0.95))
    assert together.high - together.low < 0.5 * (apart.high - apart.low)
    assert together.low < 0.8 < together.high


def test_a_ceiling_that_reaches_zero_has_no_share():
    assert all(math.isnan(one) for one in share_of(SCORE, Estimate(0.1, 0.0, 0.3), 0.5))
    assert all(math.isnan(one) for one in share_of(SCORE, Estimate(math.nan, math.nan, math.nan), 0.5))


def test_a_negative_score_has_a_negative_share():
    found = share_of(Estimate(-0.3, -0.4, -0.2), CEILING, 0.0)
    assert found.value == pytest.approx(-0.6)
    assert found.low < found.value < found.high < 0


def test_a_score_without_an_interval_has_a_share_without_one():
    found = share_of(Estimate(0.4, math.nan, math.nan), CEILING, 0.0)
    assert found.value == pytest.approx(0.8)
    assert math.isnan(found.low)


def test_the_interval_of_a_perfect_predictor_covers_one():
    """The expected output itself reaches the ceiling: its share is 1, within an interval narrower than the unpaired one."""
    covered, trials = 0, 30
    for trial in range(trials):
        tau, masks, outputs = additive_world(s=40, seeds=3, noise=2.0, seed=trial)
        score = lds(tau, make_runs(masks, outputs), resamples=100)
        unpaired = share_of(
            Estimate(score.value, score.low, score.high),
            Estimate(score.ceiling, score.ceiling_low, score.ceiling_high),
            0.0,
        )
        assert score.share.high - score.share.low < unpaired.high - unpaired.low
        covered += score.share.low <= 1 <= score.share.high
    assert covered >= stats.binom.ppf(0.002, trials, 0.95)
