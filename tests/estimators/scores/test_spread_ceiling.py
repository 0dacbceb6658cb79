"""The ceiling of the spread against simulated truth: right on average, covered as said, and nothing where there is nothing.

The truth: the mean over queries of Spearman's correlation between the spread of each subset and the one that its seeds show.
"""

import itertools
import statistics

import numpy as np
import pytest
from scipy import integrate, stats

from estimators.scores import spread_ceiling
from estimators.scores.agreement import fisher_z
from estimators.scores.spread_ceiling import halves, law_of_halves, noise
from tests.estimators.scores.simulations import runs_of, take, unit_ranks

SIGNALS = {
    "none": lambda rng, t: np.zeros(t),
    "weak": lambda rng, t: np.full(t, 0.15),  # the spread differs by a fifth between subsets
    "strong": lambda rng, t: rng.uniform(0.5, 2, t),
    "mixed": lambda rng, t: np.where(
        rng.random(t) < 1 / 3, 0, rng.uniform(0.1, 1, t)
    ),  # a third is equally steady on all
}
"""Kind -> variances (t,) of the log variance over subsets."""

NOISES = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, size=shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape),
    "bounded": lambda rng, shape: rng.random(shape),
}
"""Kind -> outputs of that shape; their scale is nobody's business."""


def simulate(rng, signal, s, seeds, t, noise="normal", shared=0.0):
    """Return runs, and the mean correlation of the spread they show with the one they have.

    `shared` is the part of the variance, of the log spread and of normal noise, that all queries have in common.
    """
    variance = SIGNALS[signal](rng, t)
    common = np.sqrt(1 - shared) * rng.normal(size=(s, t)) + np.sqrt(shared) * rng.normal(size=(s, 1))
    drawn = np.sqrt(1 - shared) * NOISES[noise](rng, (seeds, s, t)) + np.sqrt(shared) * rng.normal(size=(seeds, s, 1))
    outputs = np.exp(np.sqrt(variance) * common / 2) * drawn
    truth = np.where(variance > 0, (unit_ranks(common) * unit_ranks(outputs.std(axis=0))).sum(0), 0).mean()
    return runs_of(outputs), float(truth)


def assert_right(signal, s, seeds, t, trials, least, slack=0.03):
    """Hold the mean of the ceiling to the truth, within 4% or the slack, and the interval's coverage to the least."""
    drawn = [simulate(np.random.default_rng([trial, s, seeds, t]), signal, s, seeds, t) for trial in range(trials)]
    truth = np.mean([one for _, one in drawn])
    found = [spread_ceiling(runs) for runs, _ in drawn]
    values = np.array([one.value for one in found])
    chance = 3 * values.std(ddof=1) / np.sqrt(trials)
    assert abs(values.mean() - truth) <= max(slack, 0.04 * truth) + chance
    covered = sum(one.low <= truth <= one.high for one in found)
    assert covered >= stats.binom.ppf(0.002, trials, least)
    return chance


@pytest.mark.parametrize(("signal", "seeds"), [("weak", 4), ("strong", 4), ("weak", 9), ("mixed", 9)])
def test_the_ceiling_is_right_on_average_and_covered(signal, seeds):
    assert assert_right(signal, 24, seeds, 60, trials=25, least=0.9) < 0.1


@pytest.mark.parametrize("signal", ["weak", "strong", "mixed"])
@pytest.mark.parametrize(
    ("s", "seeds", "t", "slack"),
    [
        pytest.param(20, 4, 100, 0.06, marks=pytest.mark.slow),
        pytest.param(50, 4, 300, 0.03, marks=pytest.mark.grid),
        pytest.param(100, 4, 50, 0.03, marks=pytest.mark.grid),
        pytest.param(50, 5, 100, 0.03, marks=pytest.mark.grid),
        pytest.param(20, 8, 200, 0.03, marks=pytest.mark.grid),
        pytest.param(30, 20, 40, 0.03, marks=pytest.mark.slow),
    ],
)
def test_the_ceiling_is_right_on_average_and_covered_on_the_whole_grid(signal, s, seeds, t, slack):
    assert_right(signal, s, seeds, t, trials=60, least=0.87, slack=slack)


@pytest.mark.parametrize(("noise", "shared"), [*((kind, 0.0) for kind in NOISES), ("normal", 0.3)])
def test_where_no_subset_is_less_steady_there_is_nothing_to_find(noise, shared):
    """Whatever the outputs' distribution, and also where queries share their noise."""
    trials = 30
    found = [
        spread_ceiling(simulate(np.random.default_rng(trial), "none", 20, 4, 20, noise, shared)[0])
        for trial in range(trials)
    ]
    assert sum(one.nothing_to_find for one in found) >= stats.binom.ppf(0.002, trials, 0.95)
    r = np.array([one.r.mean() for one in found])
    assert abs(r.mean()) < 3.5 * r.std(ddof=1) / np.sqrt(trials)


def test_r_is_the_mean_over_halves_of_the_correlation_of_their_spreads():
    runs, _ = simulate(np.random.default_rng(0), "strong", 12, 5, 3)
    found = spread_ceiling(runs)
    for q in range(3):
        y = runs.outputs[:, q].astype(float).reshape(12, 5).tolist()
        correlations = []
        for one in itertools.combinations(range(5), 2):
            spreads = [
                [statistics.stdev(row[k] for k in range(5) if (k in one) == inside) for row in y]
                for inside in (True, False)
            ]
            correlations.append(stats.spearmanr(*spreads).statistic)
        assert found.r[q] == pytest.approx(statistics.mean(correlations), abs=1e-12)
    assert (found.seeds, found.subsets, found.reason) == (5, 12, "")


@pytest.mark.parametrize(("seeds", "splits"), [(4, 3), (5, 10), (6, 10), (7, 10), (8, 10), (30, 10)])
def test_halves_part_the_seeds_and_are_others_every_time(seeds, splits):
    found = halves(seeds)
    assert len({frozenset(map(frozenset, map(np.ndarray.tolist, split))) for split in found}) == splits == len(found)
    for one, other in found:
        assert sorted([*one, *other]) == list(range(seeds))
        assert (len(one), len(other)) == (seeds // 2, seeds - seeds // 2)


@pytest.mark.parametrize("seeds", [2, 3, 4, 10])
def test_noise_is_what_the_density_of_the_log_variance_says(seeds):
    d = seeds - 1
    square, _ = integrate.quad(lambda x: (stats.chi2.pdf(np.exp(x), d) * np.exp(x)) ** 2, -60, 8, limit=500)
    assert noise(seeds) == pytest.approx(1 / (4 * np.pi * square**2), rel=1e-6)


@pytest.mark.parametrize("s", [12, 50])
@pytest.mark.parametrize("seeds", [4, 5, 6, 7, 12])
def test_the_law_of_r_is_that_of_simulated_spreads(s, seeds):
    """As many independent splits tell as much as all of them as is said: the variance of r shows it."""
    rng, t = np.random.default_rng([s, seeds]), 4000
    outputs = np.exp(0.2 * rng.normal(size=(s, t))) * rng.normal(size=(seeds, s, t))
    r = np.mean(
        [(unit_ranks(outputs[a].var(0)) * unit_ranks(outputs[b].var(0))).sum(0) for a, b in halves(seeds)], axis=0
    )
    law = law_of_halves(s, seeds)
    assert fisher_z(r, 2).var() == pytest.approx(np.interp(r.mean(), law.r, law.variance), rel=0.09)


@pytest.mark.parametrize(("s", "seeds", "enough"), [(20, 3, 0), (4, 6, 4), (20, 1, 0)])
def test_too_few_give_no_ceiling_and_a_reason(s, seeds, enough):
    runs, _ = simulate(np.random.default_rng(0), "strong", s, seeds, 3)
    found = spread_ceiling(runs)
    assert np.isnan([found.value, found.low, found.high, *found.per_query, *found.r]).all()
    assert found.reason == f"needs 5 subsets with 4 seeds each, 'holdout' has {enough}"
    assert not found.nothing_to_find


def test_more_seeds_have_a_higher_ceiling():
    runs, _ = simulate(np.random.default_rng(0), "strong", 40, 12, 30)
    fewer = take(runs, runs.repeats < 4)
    assert spread_ceiling(fewer).high < spread_ceiling(runs).low
