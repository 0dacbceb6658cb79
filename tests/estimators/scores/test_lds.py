"""The LDS against its definition written out, and what must not change it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from estimators.scores import Estimate, difference, lds, noise_ceiling, share_of
from estimators.scores.bootstrap import Resamples
from estimators.scores.jackknife import Jackknife
from estimators.scores.spearman import resampled_spearman
from tests.estimators.scores.simulations import half_masks, make_runs, take
from workers.errors import DataError


def problem(seed=0, s=14, n=10, t=5, seeds=3):
    rng = np.random.default_rng(seed)
    masks = half_masks(rng, s, n)
    tau = rng.integers(-3, 4, size=(n, t)).astype(np.float32)
    outputs = (masks @ tau)[:, None] + 4 * rng.normal(size=(s, seeds, t))
    return tau, make_runs(masks, outputs)


def literal(tau, runs, subsets=None, queries=None):
    """The definition: loops, SciPy, plain means."""
    ids = np.unique(runs.subsets)
    masks = np.array([runs.masks[runs.subsets == i][0] for i in ids], dtype=float)
    outputs = np.array([runs.outputs[runs.subsets == i].astype(float).mean(0) for i in ids])
    subsets = range(len(ids)) if subsets is None else subsets
    queries = range(tau.shape[1]) if queries is None else queries
    scores = []
    for q in queries:
        x = [masks[j] @ tau[:, q].astype(float) for j in subsets]
        y = [outputs[j, q] for j in subsets]
        scores.append(0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else stats.spearmanr(x, y).statistic)
    return float(np.mean(scores))


def test_equals_the_definition():
    tau, runs = problem()
    score = lds(tau, runs, resamples=0)
    assert score.value == pytest.approx(literal(tau, runs), abs=1e-12)
    assert score.per_query.shape == (5,)
    assert score.per_query.mean() == pytest.approx(score.value, abs=1e-12)
    assert (score.metric, score.queries, score.subsets, score.seeds) == ("lds", 5, 14, 3)
    assert np.isnan([score.low, score.high]).all()
    assert 0 < score.ceiling <= 1


def test_interval_equals_a_brute_force_bootstrap_of_the_same_resamples():
    tau, runs = problem(s=8, n=6, t=4)
    drawn = Resamples.draw(8, 4, 40, seed=5)
    values = [
        literal(tau, runs, np.repeat(np.arange(8), rows), np.repeat(np.arange(4), queries))
        for rows, queries in zip(drawn.rows[1:], drawn.queries[1:], strict=True)
    ]
    score = lds(tau, runs, resamples=40, seed=5, level=0.8)
    expected = np.quantile(values, [0.1, 0.9]) - np.mean(values) + score.value
    np.testing.assert_allclose([score.low, score.high], np.clip(expected, -1, 1), atol=1e-12)


def test_runs_in_any_order_and_with_missing_seeds():
    tau, runs = problem()
    kept = np.random.default_rng(1).permutation(len(runs.outputs))[:-5]
    kept = kept[runs.subsets[kept] != 3]
    some = take(runs, kept)
    score = lds(tau, some, resamples=0, planned=14)
    assert score.value == pytest.approx(literal(tau, some), abs=1e-12)
    assert score.basis.subsets_left_out == 14 - len(np.unique(some.subsets))
    assert score.basis.subsets_with_fewer_seeds > 0
    assert score.details["runs"] == len(kept)


def test_a_constant_column_scores_zero_and_is_counted():
    tau, runs = problem()
    tau[:, 1] = 0
    tau[:, 2] = 0.1  # subsets have one size: the predictions differ by rounding errors at most
    runs.outputs[:, 3] = 1
    score = lds(tau.astype(np.float64), runs, resamples=20)
    assert (score.per_query[[1, 2, 3]] == 0).all()
    assert (score.per_query[[0, 4]] != 0).all()
    assert score.basis.constant_predictions == 2
    assert score.basis.constant_outputs == 1


def test_one_seed_has_no_ceiling():
    tau, runs = problem(seeds=1)
    assert np.isnan(lds(tau, runs, resamples=0).ceiling)


def test_the_ceiling_and_the_share_are_those_of_the_same_runs():
    tau, runs = problem(s=30)
    runs = take(runs, np.arange(2, 90))  # subset 0 has one seed: no part in the ceiling
    score, ceiling = lds(tau, runs, resamples=50, level=0.8), noise_ceiling(runs, level=0.8)
    assert (score.ceiling, score.ceiling_low, score.ceiling_high) == tuple(ceiling.estimate)
    jackknife = Jackknife.of(29)
    masks, outputs = runs.means()
    scores = resampled_spearman(masks[1:] @ tau, outputs[1:], jackknife.counts)
    correlation = jackknife.correlation(scores, ceiling.left_out)
    expected = share_of(Estimate(score.value, score.low, score.high), ceiling.estimate, correlation)
    np.testing.assert_allclose(score.share, expected, rtol=1e-9)
    assert lds(tau, runs, resamples=0, level=0.8).share.value == pytest.approx(score.value / ceiling.value)


def test_runs_it_was_fitted_on_are_refused():
    tau, runs = problem()
    fitted = np.vstack([half_masks(np.random.default_rng(9), 20, 10), runs.masks[6]])
    with pytest.raises(DataError, match=r"of the 14 scoring subsets were also fitted on"):
        lds(tau, runs, fitted_masks=fitted)


def test_wrong_attributions_and_too_few_subsets_are_refused():
    tau, runs = problem()
    with pytest.raises(DataError, match="looks transposed"):
        lds(tau.T, runs)
    one = take(runs, np.arange(3))
    with pytest.raises(DataError, match=r"^the LDS needs at least 2 subsets, 'holdout' has 1"):
        lds(tau, one)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_must_not_change_it(seed):
    tau, runs = problem(seed)
    rng = np.random.default_rng(seed)
    value = lds(tau, runs, resamples=0).value
    assert lds(-tau, runs, resamples=0).value == pytest.approx(-value, abs=1e-12)
    # Powers of two and small integers keep the float arithmetic exact, so that ties stay ties.
    scale, offset = 2.0 ** rng.integers(-3, 4), rng.integers(-5, 6, size=5)
    assert lds(tau * scale + offset, runs, resamples=0).value == pytest.approx(value, abs=1e-12)
    examples, queries = rng.permutation(10), rng.permutation(5)
    moved = replace(runs, masks=runs.masks[:, examples], outputs=runs.outputs[:, queries])
    score = lds(tau[examples][:, queries], moved, resamples=0)
    assert score.value == pytest.approx(value, abs=1e-12)
    np.testing.assert_allclose(score.per_query, lds(tau, runs, resamples=0).per_query[queries], atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("s", "t", "least", "most"), [(100, 20, 0.2, 0.9), (50, 100, 0.9, 0.95)])
def test_the_interval_covers_the_expected_score(s, t, least, most):
    """Jointly normal predictions and outputs, correlations uniform on (least, most): the expected LDS is known.

    Spearman's correlation of s normal pairs of correlation p has the expectation
    6 / (pi (s + 1)) (asin p + (s - 2) asin(p / 2)) (Moran 1948). The second case, many queries with high scores, is the one
    that an interval which is not centred on the value misses nearly always.
    """
    trials = 100
    grid = np.linspace(least, most, 20_001)
    truth = np.mean(6 / np.pi / (s + 1) * (np.arcsin(grid) + (s - 2) * np.arcsin(grid / 2)))
    covered = 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        rho = rng.uniform(least, most, size=t)
        tau, masks, signal = _normal_sums(rng, s, t)
        noise = np.sqrt(0.2) * rng.normal(size=(s, 1)) + np.sqrt(0.8) * rng.normal(size=(s, t))
        score = lds(
            tau, make_runs(masks, (rho * signal + np.sqrt(1 - rho**2) * noise)[:, None]), resamples=200, seed=trial
        )
        assert score.low < score.value < score.high
        covered += score.low <= truth <= score.high
    assert covered >= stats.binom.ppf(0.002, trials, 0.95)


def _normal_sums(rng, s, t, n=400):
    """Return tau, masks and the predictions less their mean: very nearly standard normal, independent over queries."""
    masks = rng.random((s, n)) < 0.5
    tau = rng.normal(size=(n, t)) / np.sqrt(n / 4)
    return tau, masks, (masks - 0.5) @ tau


def test_the_interval_of_a_difference_is_paired_and_covers():
    """Two attributions of equal worth, whose errors differ: the difference is 0, and its interval is narrower than theirs."""
    covered, trials, widths = 0, 40, []
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        masks, truth = half_masks(rng, 40, 30), rng.normal(size=(30, 20))
        runs = make_runs(masks, (masks @ truth)[:, None] + 3 * rng.normal(size=(40, 1, 20)))
        one, other = (
            lds(truth + 0.3 * rng.normal(size=truth.shape), runs, resamples=100, seed=trial).resampled for _ in range(2)
        )
        found = difference(one, other)
        assert found.value == pytest.approx(one[0] - other[0])
        unpaired = difference(one, np.append(other[0], other[:0:-1]))
        widths.append((found.high - found.low, unpaired.high - unpaired.low))
        covered += found.low <= 0 <= found.high
    paired_width, unpaired_width = np.mean(widths, axis=0)
    assert paired_width < 0.8 * unpaired_width
    assert covered >= stats.binom.ppf(0.002, trials, 0.95)
