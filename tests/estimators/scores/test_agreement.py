"""The law of r against closed forms: what is known of it without a simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from estimators.scores.agreement import Law, expected_spearman, fisher_z, spearman_brown

CASES = [(5, 2, 1.0), (40, 2, 1.0), (40, 3, 1.0), (200, 6, 1.0), (40, 2, 1.9)]


@pytest.mark.parametrize(("s", "seeds", "averaged"), CASES)
def test_the_grid_is_dense_at_zero_and_goes_below_it_as_far_as_chance_does(s, seeds, averaged):
    law = Law.of(s, seeds, averaged)
    above = law.reliability[law.reliability > 0]
    np.testing.assert_allclose(above, 0.998 * np.sinh(4 * np.arange(1, 46) / 45) / np.sinh(4), rtol=1e-12)
    deviation = 1 / math.sqrt((averaged * s - 2 - 2 / seeds) * math.comb(seeds, 2))
    reach = min(6 * deviation, 0.95 / (seeds - 1))  # r can be as low as -1 / (seeds - 1), and no lower
    below = [-one for one in above[::-1] if one < reach]
    assert law.reliability.tolist() == [*below, 0.0, *above]
    assert law.r.tolist() == expected_spearman(law.reliability, s).tolist()
    assert (law.subsets, law.seeds) == (s, seeds)


@pytest.mark.parametrize("averaged", [1.0, 2.5])
def test_the_variance_of_a_pair_is_bonett_and_wrights(averaged):
    law = Law.of(30, 2, averaged)
    np.testing.assert_allclose(law.variance, (1 + law.r**2 / 2) / (averaged * 30 - 3))


@pytest.mark.parametrize("seeds", [2, 3, 5, 9])
def test_without_signal_pairs_are_uncorrelated_and_r_varies_as_the_mean_of_as_many(seeds):
    s = 2000
    law, of_r = Law.of(s, seeds), 1 / ((s - 1) * math.comb(seeds, 2))
    assert law.variance[law.reliability == 0] == pytest.approx(
        (seeds / 2) ** 2 * of_r, rel=2e-3
    )  # dz / dr is R / 2 at 0


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_mean_of_z_makes_r_what_is_expected_of_it(seeds):
    law = Law.of(5000, seeds)
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    power = np.exp(2 * (law.centre[:, None] + np.sqrt(law.variance)[:, None] * nodes))
    r = (power - 1) / (power + seeds - 1) @ weights / weights.sum()
    np.testing.assert_allclose(r, law.r, atol=2e-7)
    assert abs(law.centre - fisher_z(law.r, seeds)).max() > 1e-5, "the mean of z is not z of the mean"


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_fishers_transform_is_that_of_intraclass_correlations_and_ends_a_little_before_its_range(seeds):
    r = np.array([-0.5 / (seeds - 1), 0.0, 0.3, 0.9])
    np.testing.assert_allclose(fisher_z(r, seeds), np.log((1 + (seeds - 1) * r) / (1 - r)) / 2, atol=1e-12)
    lowest = -1 / (seeds - 1)
    ends = [
        0.5 * math.log((seeds - 1) * 1e-6 / (1 - lowest - 1e-6)),
        0.5 * math.log((seeds - (seeds - 1) * 1e-6) / 1e-6),
    ]
    np.testing.assert_allclose(fisher_z(np.array([lowest, 1.0]), seeds), ends, rtol=1e-9)


def test_spearman_is_expected_to_be_a_little_lower_than_pearson():
    """Of two pairs a correlation is a coin: heads with the chance that they are in order, 1/2 + asin(p) / pi (Sheppard 1899)."""
    p = np.array([-0.7, 0.0, 0.2, 1.0])
    np.testing.assert_allclose(expected_spearman(p, 2), 2 / np.pi * np.arcsin(p), atol=1e-12)
    grade = 6 / np.pi * np.arcsin(p / 2)  # of infinitely many (Pearson 1907)
    np.testing.assert_allclose(expected_spearman(p, 10**9), grade, atol=1e-8)
    rng = np.random.default_rng(0)
    x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=(4000, 6)).transpose(2, 0, 1)
    simulated = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    assert expected_spearman(np.array(0.6), 6) == pytest.approx(
        np.mean(simulated), abs=4 * np.std(simulated) / 4000**0.5
    )


def test_spearman_brown_is_the_reliability_of_a_mean():
    np.testing.assert_allclose(spearman_brown(np.array([0, 0.5, 1]), 4), [0, 0.8, 1])
    np.testing.assert_allclose(spearman_brown(np.array([0.1, 0.5]), 1), [0.1, 0.5])
