"""The spread's score against a plain loop and simulated truth: outputs whose standard deviation is known of every subset."""

import statistics

import numpy as np
import pytest
from scipy import stats

from estimators.evidence import Evidence
from estimators.retraining_based.difference_in_means import DifferenceInMeans
from estimators.scores import difference, lds, spread_lds, spread_of
from tests.estimators.scores.simulations import make_runs, take, without
from workers.errors import DataError


def world(seed=0, s=60, n=20, t=12, seeds=5, effect=0.5, steady=0):
    """Return how much each example raises the log of the spread (n, t), and runs whose mean depends on other effects.

    The last `steady` queries have one and the same spread on all subsets.
    """
    rng = np.random.default_rng(seed)
    masks = rng.random((s, n)) < 0.5
    noisy, of_mean = effect * rng.normal(size=(n, t)), rng.normal(size=(n, t))
    noisy[:, t - steady :] = 0
    spread = np.exp((masks - 0.5) @ noisy)
    outputs = (masks @ of_mean)[:, None] + spread[:, None] * rng.normal(size=(s, seeds, t))
    return noisy, make_runs(masks, outputs, kind="bernoulli", order="own")


def by_a_plain_loop(tau, runs):
    """Return (t,) the score of every query, of runs that have as many seeds in all subsets."""
    found = []
    for q in range(runs.outputs.shape[1]):
        predicted, measured = [], []
        for subset in sorted(set(runs.subsets.tolist())):
            rows = [row for row, other in enumerate(runs.subsets) if other == subset]
            measured.append(statistics.stdev(float(runs.outputs[row, q]) for row in rows))
            predicted.append(sum(float(tau[i, q]) for i in range(len(tau)) if runs.masks[rows[0], i]))
        found.append(stats.spearmanr(predicted, measured).statistic)
    return found


def mean_correlation(tau, runs):
    """Return the score of runs in order, with as many seeds in all subsets and no ties."""
    s = runs.subsets.max() + 1
    ranks = [
        stats.rankdata(x, axis=0) - (s + 1) / 2
        for x in (runs.masks[:: len(runs.subsets) // s] @ tau, runs.outputs.reshape(s, -1, tau.shape[1]).std(axis=1))
    ]
    return (ranks[0] * ranks[1]).sum() / np.square(ranks[0]).sum()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_it_is_the_rank_correlation_with_the_standard_deviation_over_seeds(seeds):
    tau, runs = world(s=15, t=4, seeds=seeds)
    guess = tau + np.random.default_rng(1).normal(size=tau.shape)
    moved = np.random.default_rng(2).permutation(len(runs.subsets))  # runs finish in any order
    runs = take(runs, moved)
    found = spread_lds(guess, runs, resamples=10)
    np.testing.assert_allclose(found.per_query, by_a_plain_loop(guess, runs), atol=1e-12)
    assert found.value == pytest.approx(np.mean(found.per_query))
    assert (found.metric, found.subsets, found.seeds, found.queries) == ("spread_lds", 15, seeds, 4)
    assert found.details == {"runs": 15 * seeds}


def test_ties_get_average_ranks():
    tau, runs = world(s=15, t=4, seeds=2)
    coarse = runs.with_outputs(np.round(runs.outputs / 4).astype(np.float32))
    found = spread_lds(np.round(tau, 0), coarse, resamples=10)
    np.testing.assert_allclose(found.per_query, by_a_plain_loop(np.round(tau, 0), coarse), atol=1e-12)


def test_the_exact_spread_reaches_the_ceiling_and_the_mean_has_no_say():
    noisy, runs = world(s=150, seeds=8, t=20)
    exact = spread_lds(noisy, runs, resamples=200)
    assert exact.value == pytest.approx(exact.ceiling, abs=0.02)
    assert exact.share.low < 1 < exact.share.high
    assert spread_lds(-noisy, runs, resamples=0).value == pytest.approx(-exact.value)
    moved = runs.with_outputs(runs.outputs + (100 * runs.masks @ np.ones((20, 20))).astype(np.float32))
    assert spread_lds(noisy, moved, resamples=0).value == pytest.approx(exact.value, abs=0.01)
    of_mean, *_ = np.linalg.lstsq(runs.masks.astype(float), runs.outputs.astype(float), rcond=None)
    assert lds(of_mean, runs, resamples=0).value > 0.5
    assert abs(spread_lds(of_mean, runs, resamples=0).value) < 0.1


@pytest.mark.parametrize("effect", [0.0, 0.1, 0.5])
def test_the_interval_covers_the_expected_score(effect):
    """Also where all subsets have the same spread: nothing is expected there, and the interval holds 0."""
    trials, worlds = 50, 400
    wrong = np.random.default_rng(9).normal(size=(20, 12))

    def drawn(trial):
        noisy, runs = world(seed=trial, s=40, seeds=3, effect=effect)  # of three seeds no ceiling is computed
        return noisy + 0.3 * wrong, runs

    expected = np.mean([mean_correlation(*drawn(1000 + trial)) for trial in range(worlds)])
    assert (abs(expected) < 0.02) == (effect == 0)
    found = [spread_lds(*drawn(trial), resamples=100) for trial in range(trials)]
    covered = sum(one.low <= expected <= one.high for one in found)
    assert covered >= stats.binom.ppf(0.002, trials, 0.95)
    assert all(one.low < one.value < one.high for one in found)


def test_where_no_subset_is_less_steady_there_is_nothing_to_find_and_no_share():
    trials = 30
    found = [spread_lds(*world(seed=trial, s=20, effect=0, seeds=4), resamples=0) for trial in range(trials)]
    without_share = [one for one in found if one.ceiling_low <= 0]
    assert len(without_share) >= stats.binom.ppf(0.002, trials, 0.95)
    assert np.isnan([one.share.value for one in without_share]).all()


@pytest.mark.parametrize("seeds", [2, 3])
def test_fewer_than_four_seeds_are_scored_without_a_ceiling(seeds):
    noisy, runs = world(seeds=seeds)
    found = spread_lds(noisy, runs, resamples=100)
    assert found.low < found.value < found.high
    assert np.isnan([found.ceiling, found.ceiling_low, found.share.value]).all()


def test_subsets_with_fewer_seeds_are_left_out_and_counted():
    noisy, runs = world(s=20, seeds=4)
    uneven = without(runs, 0, 1, 2, 3, 5, 9, 10)  # subset 0 has no run, subset 1 has three, subset 2 has two
    found = spread_lds(noisy, uneven, resamples=20, planned=20)
    whole = spread_lds(noisy, without(runs, *range(12)), resamples=20)
    np.testing.assert_array_equal(found.per_query, whole.per_query)
    assert (found.ceiling, found.subsets, found.seeds) == (whole.ceiling, 17, 4)
    assert (found.basis.subsets_left_out, found.basis.subsets_with_fewer_seeds) == (1, 2)
    assert (found.basis.order, found.basis.queries_left_out) == ("own", 0)
    assert np.isnan(whole.basis.subsets_left_out)


def test_of_a_single_subset_with_more_seeds_the_others_are_not_left_out():
    noisy, runs = world(s=20, seeds=4)
    found = spread_lds(noisy, without(runs, *range(7, 80, 4)), resamples=20, planned=20)
    assert (found.subsets, found.seeds, found.basis.subsets_with_fewer_seeds) == (20, 3, 0)


def test_the_spread_is_one_run_a_subset():
    _, runs = world(s=7, seeds=3)
    found = spread_of(without(runs, 0, 1, 2, 3))
    assert found.subsets.tolist() == [2, 3, 4, 5, 6]
    assert (found.repeats.tolist(), found.repeats.dtype) == ([0] * 5, np.int64)
    assert (found.design, found.kind, found.measure, found.order) == ("holdout", "bernoulli", "margin", "own")
    assert found.masks.tolist() == runs.masks[6::3].tolist()
    expected = [[statistics.stdev(map(float, row)) for row in runs.outputs[at : at + 3].T] for at in range(6, 21, 3)]
    np.testing.assert_array_equal(found.outputs, np.float32(expected))


def test_two_subsets_of_two_seeds_are_the_least():
    _, runs = world(s=2, seeds=2)
    assert spread_of(runs).subsets.tolist() == [0, 1]
    assert set(spread_lds(np.eye(20)[:, :12], runs, resamples=0).per_query.round(12).tolist()) == {-1.0, 0.0, 1.0}


def test_what_cannot_be_judged_is_refused():
    noisy, runs = world(s=10, seeds=1)
    with pytest.raises(DataError, match="'holdout' has 0"):
        spread_lds(noisy, runs)
    _, runs = world(s=10, seeds=2)
    with pytest.raises(DataError, match="'holdout' has 1"):
        spread_lds(noisy, without(runs, *range(1, 19, 2)))
    with pytest.raises(DataError, match="fitted on"):
        spread_lds(noisy, runs, fitted_masks=runs.masks[:2])
    with pytest.raises(DataError, match="expected"):
        spread_lds(noisy[:-1], runs)


def test_runs_that_do_not_depend_on_their_seed_have_no_spread():
    noisy, runs = world(s=20, seeds=4)
    masks, means = runs.means()
    found = spread_lds(noisy, make_runs(masks, means[:, None].repeat(4, axis=1)), resamples=20)
    assert (found.value, found.basis.constant_outputs) == (0, 12)
    assert found.ceiling_low <= 0


def test_two_of_them_are_compared_in_the_same_resamples():
    noisy, runs = world(s=80, seeds=8)
    exact, worse = (
        spread_lds(tau, runs, resamples=300)
        for tau in (noisy, noisy + 0.5 * np.random.default_rng(3).normal(size=(20, 12)))
    )
    apart = difference(exact.resampled, worse.resampled)
    assert apart.value == pytest.approx(exact.value - worse.value)
    assert 0 < apart.low < apart.high
    assert apart.high - apart.low < exact.high - exact.low + worse.high - worse.low
    np.testing.assert_array_equal(spread_lds(2 * noisy, runs, resamples=300).resampled, exact.resampled)
    assert (spread_lds(noisy, runs, resamples=300, seed=1).resampled[1:] != exact.resampled[1:]).any()


def test_an_estimator_of_runs_attributes_the_spread():
    """Fitted on other subsets, it finds who raises the spread; fitted on outputs, it finds nothing of that."""
    noisy, runs = world(s=600, n=20, seeds=4, effect=0.3, steady=3)
    fit, held = without(runs, *range(2000, 2400)), without(runs, *range(2000))
    spread = spread_of(fit)
    evidence = Evidence(20, 12, "margin", {"held": spread})
    found = DifferenceInMeans().attribute(evidence).values
    agreement = stats.pearsonr(found[:, :9].ravel(), noisy[:, :9].ravel()).statistic
    assert agreement > 0.8
    score = spread_lds(found, held, resamples=200)
    assert score.low > 0.3
    assert abs(score.per_query[9:].mean()) < 0.25
    of_mean = DifferenceInMeans().attribute(Evidence(20, 12, "margin", {"held": fit})).values
    assert abs(spread_lds(of_mean, held, resamples=0).value) < 0.15
    assert (spread.outputs.dtype, spread.kind, spread.order, len(spread.masks)) == (np.float32, "bernoulli", "own", 500)
