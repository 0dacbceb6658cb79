"""The ceiling's prediction for fresh seeds, against simulations whose signal and noise are known."""

import numpy as np
import pytest
from scipy import stats

from estimators.scores import seed_check
from estimators.scores.spearman import spearman
from tests.estimators.scores.simulations import additive_world as world
from tests.estimators.scores.simulations import make_runs
from workers.errors import DataError


def test_fresh_seeds_confirm_the_ceiling():
    _, masks, outputs = world(seeds=9, noise=1.5)
    runs, fresh = make_runs(masks, outputs[:, :6]), make_runs(masks, outputs[:, 6:], first_repeat=6)
    found = seed_check(runs, fresh)
    assert (found.subsets, found.seeds, found.fresh_seeds) == (400, 6, 3)
    for agreement in (found.single, found.mean):
        assert agreement.measured == pytest.approx(agreement.predicted, abs=0.02)
        assert agreement.low < agreement.high
        assert agreement.low < agreement.measured - agreement.predicted < agreement.high
    # The population's Pearson correlations, which the rank correlations approach from below.
    variance = 1.5**2
    assert found.single.predicted == pytest.approx(np.sqrt(1 / (1 + variance) / (1 + variance / 6)), abs=0.03)
    assert found.mean.predicted == pytest.approx(np.sqrt(1 / (1 + variance / 3) / (1 + variance / 6)), abs=0.03)


def test_seeds_that_are_not_independent_are_found_out():
    """All seeds of the first set share an error of their subset: the ceiling is too high, and fresh seeds tell."""
    _, masks, outputs = world(seeds=6, noise=1.0)
    outputs[:, :4] += 1.5 * np.random.default_rng(5).normal(size=(400, 1, 30))
    runs, fresh = make_runs(masks, outputs[:, :4]), make_runs(masks, outputs[:, 4:], design="fresh")
    found = seed_check(runs, fresh)
    assert not found.single.confirmed
    assert found.single.measured < found.single.predicted - 0.1


def test_subsets_are_matched_by_their_masks():
    _, masks, outputs = world(s=40, t=3, seeds=4)
    runs = make_runs(masks, outputs[:, :3])
    order = np.random.default_rng(0).permutation(40)[:25]
    fresh = make_runs(masks[order], outputs[order, 3:], design="fresh")
    found = seed_check(runs, fresh)
    outputs = outputs.astype(np.float32).astype(float)
    expected = spearman(outputs[order, 3], outputs[order, :3].mean(1)).mean()
    assert found.single.measured == pytest.approx(expected, abs=1e-12)
    assert found.subsets == 25


def test_checks_that_cannot_be_made_are_refused():
    _, masks, outputs = world(s=10, t=3, seeds=4)
    runs = make_runs(masks, outputs)
    with pytest.raises(DataError, match="10 of the fresh runs are the very runs of 'holdout'"):
        seed_check(runs, make_runs(masks, outputs[:, 3:], first_repeat=3))
    with pytest.raises(DataError, match="found 4 on 0"):
        seed_check(runs, make_runs(~masks, outputs, design="fresh"))
    with pytest.raises(DataError, match="found 1 on 10"):
        seed_check(make_runs(masks, outputs[:, :1]), make_runs(masks, outputs[:, 1:], design="fresh"))


@pytest.mark.parametrize("noise", [1.0, 6.0])
def test_the_interval_of_the_difference_covers_zero_as_often_as_it_says(noise):
    """Independent seeds confirm the ceiling, 95 times in 100, where there is much signal and where there is hardly any."""
    confirmed = 0
    for trial in range(40):
        _, masks, outputs = world(s=40, t=20, seeds=5, noise=noise, seed=trial)
        runs, fresh = make_runs(masks, outputs[:, :3]), make_runs(masks, outputs[:, 3:], first_repeat=3)
        confirmed += seed_check(runs, fresh).single.confirmed
    assert confirmed >= stats.binom.ppf(0.002, 40, 0.95)
