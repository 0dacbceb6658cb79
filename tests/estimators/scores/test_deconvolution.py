"""The ceiling's value and interval against simulated truth: right on average, whatever the signal, and covered as said.

The truth: the mean over queries of Spearman's correlation between the mean of the seeds and the expected output.
"""

import numpy as np
import pytest
from scipy import stats

from estimators.scores import noise_ceiling
from estimators.scores.agreement import Law, expected_spearman, fisher_z, spearman_brown
from estimators.scores.deconvolution import deconvolve, mean_over_queries, root_bias
from tests.estimators.scores.simulations import runs_of, unit_ranks

SIGNALS = {
    "none": lambda rng, t: np.zeros(t),
    "weak": lambda rng, t: np.full(t, 0.035),
    "strong": lambda rng, t: rng.uniform(0.2, 0.9, t),
    "mixed": lambda rng, t: np.where(rng.random(t) < 1 / 3, 0, rng.uniform(0.05, 0.45, t)),  # a third is noise
}
"""Kind -> reliabilities (t,) of single seeds."""


def simulate(rng, signal, s, seeds, t, shared=0.0):
    """Return outputs (seeds, s, t) and the mean correlation of their mean with the expected output.

    `shared` is the part of the variance, of signal and of noise, that all queries have in common.
    """
    reliability = SIGNALS[signal](rng, t)
    expected, noise = (
        np.sqrt(1 - shared) * rng.normal(size=(*shape, t)) + np.sqrt(shared) * rng.normal(size=(*shape, 1))
        for shape in ((s,), (seeds, s))
    )
    outputs = np.sqrt(reliability) * expected + np.sqrt(1 - reliability) * noise
    return outputs, float((unit_ranks(expected) * unit_ranks(outputs.mean(0))).sum(-2).mean())


def mean_r(outputs):
    """Return (t,) the mean Spearman correlation over all pairs of seeds."""
    seeds = len(outputs)
    return (np.square(unit_ranks(outputs).sum(0)).sum(-2) - seeds) / (seeds * (seeds - 1))


def errors(signal, s, seeds, t, trials):
    """Return the errors (trials,) of the ceiling, and the truth."""
    found, truths, law = [], [], Law.of(s, seeds)
    for trial in range(trials):
        outputs, truth = simulate(np.random.default_rng([trial, s, seeds, t]), signal, s, seeds, t)
        r = mean_r(outputs)
        error = r.std(ddof=1) / np.sqrt(t)  # the queries are independent
        found.append(mean_over_queries(r, law, lambda one: np.sqrt(spearman_brown(one, seeds)), error))
        truths.append(truth)
    return np.array(found) - np.mean(truths), float(np.mean(truths))


def assert_unbiased(signal, s, seeds, t, trials):
    found, truth = errors(signal, s, seeds, t, trials)
    chance = 3 * found.std(ddof=1) / np.sqrt(trials)
    assert abs(found.mean()) <= max(0.03, 0.04 * truth) + chance
    return chance


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(("s", "seeds", "t"), [(100, 3, 100), (50, 2, 300)])
def test_the_ceiling_is_right_on_average(signal, s, seeds, t):
    assert assert_unbiased(signal, s, seeds, t, trials=60) < 0.08


@pytest.mark.grid
@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("s", [20, 50, 200])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("t", "trials"), [(50, 200), (500, 60)])
def test_the_ceiling_is_right_on_average_on_the_whole_grid(signal, s, seeds, t, trials):
    assert_unbiased(signal, s, seeds, t, trials)


def test_roots_taken_query_by_query_would_be_found_out():
    """Pure noise would show a ceiling of its own: the bound above is one that a biased recipe does not keep."""
    r = mean_r(simulate(np.random.default_rng(0), "none", 100, 3, 2000)[0])
    assert np.sqrt(spearman_brown(np.clip(r, 0, 1), 3)).mean() > 0.13


@pytest.mark.parametrize("shared", [0.0, 0.3])
def test_pure_noise_has_nothing_to_find(shared):
    """The interval reaches 0 in at least as many sweeps as it says, also where queries share their noise."""
    reached, trials = 0, 60
    for trial in range(trials):
        found = noise_ceiling(runs_of(simulate(np.random.default_rng(trial), "none", 30, 2, 40, shared)[0]))
        assert (found.low == 0) == found.nothing_to_find
        reached += found.nothing_to_find
    assert reached >= stats.binom.ppf(0.002, trials, 0.95)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(
    ("s", "seeds", "t", "shared", "least"),
    [
        pytest.param(20, 2, 50, 0.0, 0.83, marks=pytest.mark.slow),
        pytest.param(20, 2, 300, 0.0, 0.9, marks=pytest.mark.grid),
        pytest.param(20, 5, 50, 0.0, 0.9, marks=pytest.mark.grid),
        pytest.param(50, 2, 200, 0.0, 0.9, marks=pytest.mark.grid),
        pytest.param(50, 3, 60, 0.2, 0.9, marks=pytest.mark.slow),
        pytest.param(50, 5, 150, 0.0, 0.9, marks=pytest.mark.grid),
        pytest.param(100, 3, 100, 0.0, 0.9, marks=pytest.mark.grid),
        pytest.param(200, 2, 50, 0.0, 0.9, marks=pytest.mark.grid),
    ],
)
def test_the_interval_covers_the_truth(signal, s, seeds, t, shared, least):
    """About 95%: held to 90%, since the little bias that is left counts against it; to less in the grid's poorest corner."""
    trials = 100
    drawn = [simulate(np.random.default_rng([trial, 1]), signal, s, seeds, t, shared) for trial in range(trials)]
    truth = 0.0 if signal == "none" else np.mean([one for _, one in drawn])
    found = [noise_ceiling(runs_of(outputs)) for outputs, _ in drawn]
    covered = sum(one.low <= truth <= one.high for one in found)
    assert covered >= stats.binom.ppf(0.002, trials, least)


@pytest.mark.parametrize(("s", "seeds"), [(20, 2), (20, 5), (60, 3)])
@pytest.mark.parametrize("reliability", [0.0, 0.3])
def test_the_law_of_r_is_that_of_simulated_outputs(s, seeds, reliability):
    rng, t = np.random.default_rng([s, seeds]), 4000
    expected, noise = rng.normal(size=(s, t)), rng.normal(size=(seeds, s, t))
    r = mean_r(np.sqrt(reliability) * expected + np.sqrt(1 - reliability) * noise)
    law, z = Law.of(s, seeds), fisher_z(r, seeds)
    assert r.mean() == pytest.approx(float(expected_spearman(np.array(reliability), s)), abs=4 * r.std() / np.sqrt(t))
    centre, variance = (np.interp(reliability, law.reliability, of) for of in (law.centre, law.variance))
    assert z.mean() == pytest.approx(centre, abs=0.1 * z.std())
    assert z.var() == pytest.approx(variance, rel=0.1)


def test_the_bias_of_a_root_is_mostly_taken_off():
    x = np.linspace(-8, 8, 4001)
    for mean, plain in ((1.0, 0.2), (2.0, 0.06), (3.0, 0.02)):
        density = np.exp(-0.5 * (x + mean - mean) ** 2)
        at, density = x + mean, density / density.sum()
        uncorrected = density @ (np.sign(at) * np.sqrt(abs(at))) - np.sqrt(mean)
        corrected = uncorrected + density @ np.array([root_bias(one) for one in at])
        assert uncorrected < -plain
        assert abs(corrected) < 0.06
    assert root_bias(-1.3) == -root_bias(1.3)


def root(seeds):
    """What a perfect predictor of the mean of so many seeds correlates with it by, given the reliability of one."""
    return lambda one: np.sqrt(spearman_brown(one, seeds))


def literal_pieces(r, law, pearson):
    """The recipe of the module's docstring, written out: what the mean of r says, and what the differences add."""
    target = np.sign(law.reliability) * expected_spearman(pearson(abs(law.reliability)), law.subsets)
    z, t = fisher_z(r, law.seeds), len(r)

    def added(variance):
        stretched = z.mean() + (z - z.mean()) * np.sqrt(variance / z.var(ddof=1))
        density = stats.norm.pdf(stretched[:, None], law.centre, np.sqrt(law.variance))
        weights = np.full(len(law.r), 1 / len(law.r))
        for _ in range(30):
            posterior = weights * density
            weights = (posterior / posterior.sum(axis=1, keepdims=True)).mean(axis=0)
        return weights @ target - np.interp(weights @ law.r, law.r, target)

    alike, expected = (np.interp(r.mean(), law.r, of) for of in (target, law.variance))
    surplus = z.var(ddof=1) - expected
    by_chance = np.exp(-((surplus / expected) ** 2) * (t - 1) / 4) * added(expected)
    return alike, np.sign(surplus) * (added(expected + abs(surplus)) - by_chance)


def draw_r(law, t, spread):
    """Queries of one reliability, whose z are `spread` times as far apart as chance has them."""
    place = np.argmin(abs(law.reliability - 0.25))
    z = law.centre[place] + spread * np.sqrt(law.variance[place]) * stats.norm.ppf((np.arange(t) + 0.5) / t)
    power = np.exp(2 * np.random.default_rng(0).permutation(z))
    return (power - 1) / (power + law.seeds - 1)


@pytest.mark.parametrize(("t", "spread"), [(12, 0.3), (12, 1.0), (12, 2.5), (300, 1.3), (2, 3.0)])
@pytest.mark.parametrize(("s", "seeds"), [(30, 2), (60, 4)])
def test_the_mean_equals_its_recipe_written_out(t, spread, s, seeds):
    law = Law.of(s, seeds)
    r = draw_r(law, t, spread)
    found = mean_over_queries(r, law, root(seeds), 0.05)
    unbiased = np.sqrt(seeds) * np.sqrt(0.05) * root_bias(r.mean() / 0.05)  # the root is sqrt(seeds x) near 0
    assert found == pytest.approx(sum(literal_pieces(r, law, root(seeds))) + unbiased, abs=1e-6)
    assert mean_over_queries(r, law, root(seeds), 0.0) == pytest.approx(found - unbiased, abs=1e-6)


def test_many_queries_are_counted_in_bins():
    law = Law.of(30, 2)
    r = draw_r(law, 900, 1.5)
    expected = sum(literal_pieces(r, law, root(2)))
    assert mean_over_queries(r, law, root(2), 0.0) == pytest.approx(expected, abs=2e-4)


def test_a_query_that_is_unlike_anything_the_law_allows_for_is_survived():
    law = Law.of(20_000, 2)
    assert -0.9 < mean_over_queries(np.array([0.3, 0.4, 0.35, -0.5]), law, root(2), 0.01) < 0.9


def test_queries_that_agree_alike_have_no_differences():
    law, one = Law.of(30, 2), np.full(7, 0.3)
    alike = np.interp(0.3, law.r, np.sign(law.reliability) * expected_spearman(root(2)(abs(law.reliability)), 30))
    assert mean_over_queries(one, law, root(2), 0.0) == pytest.approx(alike, abs=1e-12)
    assert mean_over_queries(one[:1], law, root(2), 0.0) == pytest.approx(alike, abs=1e-12)
    found = deconvolve(one, law, root(2), 0.01, 0.95)
    reach = 0.01 * stats.t.ppf(0.975, 19)
    low, high = np.interp(
        [0.3 - reach, 0.3 + reach],
        law.r,
        np.sign(law.reliability) * expected_spearman(root(2)(abs(law.reliability)), 30),
    )
    np.testing.assert_allclose(
        [found.value - found.low, found.high - found.value], [alike - low, high - alike], atol=1e-12
    )


@pytest.mark.parametrize(("s", "t", "error"), [(30, 25, 0.001), (30, 25, 0.1), (12, 2, 0.05), (30, 12, 0.4)])
def test_the_interval_equals_its_recipe_written_out(s, t, error):
    law = Law.of(s, 2)
    r, parts = draw_r(law, t, 1.5), min(t, 20)
    left_out = (
        np.array([literal_pieces(np.delete(r, np.arange(part, t, parts)), law, root(2)) for part in range(parts)])
        if t > 2
        else None
    )
    value, low, high = deconvolve(r, law, root(2), error, 0.9)
    target = np.sign(law.reliability) * expected_spearman(root(2)(abs(law.reliability)), s)
    reach = stats.t.ppf(0.95, min(s, 20) - 1)
    ends = np.interp([r.mean() - reach * error, r.mean(), r.mean() + reach * error], law.r, target)
    if t == 2:  # one query, left alone, differs from none
        spread = correlation = 0.0
    else:
        spread = np.sqrt((parts - 1) * left_out[:, 1].var() * max(error**2 / (r.var(ddof=1) / t), 1))
        correlation = np.corrcoef(left_out.T)[0, 1]
    below, above = (
        np.sqrt(apart**2 + (reach * spread) ** 2 + 2 * correlation * apart * reach * spread) for apart in np.diff(ends)
    )
    assert value == mean_over_queries(r, law, root(2), error)
    np.testing.assert_allclose([low, high], np.clip([value - below, value + above], 0, 1), atol=1e-6)


def test_the_correction_of_a_root_is_the_smallest_that_takes_off_most():
    """Ridge regression of the bias on what is added at each place, every mean of 100 weighing the same."""
    means = np.concatenate([np.linspace(0, 1.5, 40) ** 2, np.linspace(2.3, 12, 60)])
    places = np.arange(0.025, 18, 0.05)
    above, below = (stats.norm.pdf(side * places, means[:, None]) for side in (1, -1))
    share = (above - below) / (above + below).sum(axis=1, keepdims=True)
    often = (above / (above + below).sum(axis=1, keepdims=True)).sum(axis=0) + 1e-4
    rows = np.vstack([share, np.diag(np.sqrt(0.1 * often))])
    added = np.linalg.lstsq(rows, np.append(np.sqrt(means) - share @ np.sqrt(places), 0 * places), rcond=None)[0]
    np.testing.assert_allclose([root_bias(one) for one in places], added, atol=1e-6)
    assert root_bias(17.99) == 0
