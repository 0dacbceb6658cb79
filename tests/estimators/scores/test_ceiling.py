"""The ceiling's formula against simulations whose signal and noise are known."""

import numpy as np
import pytest

from estimators.evidence import Runs
from estimators.scores import lds, noise_ceiling, seed_check
from estimators.scores.ceiling import spearman_brown
from estimators.scores.spearman import spearman
from workers.errors import DataError


def make_runs(masks, outputs, design="holdout", first_repeat=0):
    """Runs from masks (s, n) and outputs (s, seeds, t)."""
    s, seeds, t = outputs.shape
    return Runs(
        design=design,
        kind="subsets",
        measure="margin",
        masks=np.repeat(masks, seeds, axis=0),
        outputs=outputs.reshape(s * seeds, t).astype(np.float32),
        subsets=np.repeat(np.arange(s), seeds),
        repeats=np.tile(np.arange(seeds), s) + first_repeat,
    )


def take(runs, rows):
    return Runs(
        runs.design,
        runs.kind,
        runs.measure,
        runs.masks[rows],
        runs.outputs[rows],
        runs.subsets[rows],
        runs.repeats[rows],
    )


def world(s=400, n=60, t=30, seeds=5, noise=1.0, seed=0):
    """An additive world: signal of variance 1 from tau, plus independent noise of each seed. Returns tau, masks, outputs."""
    rng = np.random.default_rng(seed)
    masks = rng.random((s, n)) < 0.5
    tau = rng.normal(size=(n, t)) / np.sqrt(n / 4)
    outputs = (masks @ tau)[:, None] + noise * rng.normal(size=(s, seeds, t))
    return tau, masks, outputs


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
    found = noise_ceiling(make_runs(masks, outputs), resamples=0)
    outputs = outputs.astype(np.float32)
    r = np.mean([spearman(outputs[:, a], outputs[:, b]) for a, b in [(0, 1), (0, 2), (1, 2)]], axis=0)
    np.testing.assert_allclose(found.r, r, atol=1e-12)
    reliability = 3 * r / (1 + 2 * r)
    np.testing.assert_allclose(found.reliability, reliability, atol=1e-12)
    np.testing.assert_allclose(found.per_query, np.sqrt(reliability), atol=1e-12)
    assert found.value == pytest.approx(np.sqrt(reliability).mean())
    assert (found.seeds, found.subsets, found.reason) == (3, 20, "")


def test_interval_holds_the_value_and_narrows_with_subsets():
    widths = []
    for s in (50, 800):
        _, masks, outputs = world(s=s, t=8, seeds=3)
        found = noise_ceiling(make_runs(masks, outputs), resamples=200)
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_pure_noise_has_a_ceiling_near_zero_and_no_noise_has_one():
    _, masks, outputs = world(s=2000, t=10, noise=1e3, seeds=2)
    assert noise_ceiling(make_runs(masks, outputs), resamples=0).value < 0.2
    _, masks, outputs = world(noise=0, seeds=2)
    assert noise_ceiling(make_runs(masks, outputs), resamples=0).value == pytest.approx(1)


def test_negative_r_is_clipped():
    np.testing.assert_allclose(spearman_brown(np.array([-0.3, 0, 0.5, 1]), 4), [0, 0, 0.8, 1])


def test_one_seed_gives_no_ceiling_and_a_reason():
    _, masks, outputs = world(s=10, t=3, seeds=1)
    found = noise_ceiling(make_runs(masks, outputs))
    assert np.isnan([found.value, found.low, found.high, *found.per_query, *found.r]).all()
    assert "needs 2 subsets with 2 seeds each, 'holdout' has 0" in found.reason


def test_uneven_seeds_use_the_largest_complete_block():
    _, masks, outputs = world(s=30, t=4, seeds=3)
    runs = make_runs(masks, outputs)
    # Subset 0 keeps one run, subset 1 loses its first.
    uneven = take(runs, np.flatnonzero(~np.isin(np.arange(90), [0, 1, 3])))
    found = noise_ceiling(uneven, resamples=0)
    complete = noise_ceiling(take(runs, np.flatnonzero(runs.subsets > 1)), resamples=0)
    np.testing.assert_allclose(found.r, complete.r, atol=1e-12)
    assert found.subsets == 28
    assert found.seeds == pytest.approx(30 / (28 / 3 + 1 + 1 / 2))


def test_order_of_runs_does_not_matter():
    _, masks, outputs = world(s=30, t=4, seeds=3)
    runs = make_runs(masks, outputs)
    moved = take(runs, np.random.default_rng(0).permutation(90))
    np.testing.assert_array_equal(noise_ceiling(moved, resamples=0).r, noise_ceiling(runs, resamples=0).r)


def test_fresh_seeds_confirm_the_ceiling():
    _, masks, outputs = world(seeds=9, noise=1.5)
    runs, fresh = make_runs(masks, outputs[:, :6]), make_runs(masks, outputs[:, 6:], first_repeat=6)
    found = seed_check(runs, fresh, resamples=200)
    assert (found.subsets, found.seeds, found.fresh_seeds) == (400, 6, 3)
    for agreement in (found.single, found.mean):
        assert agreement.measured == pytest.approx(agreement.predicted, abs=0.02)
        assert agreement.low < agreement.high
        assert agreement.low - 0.01 < agreement.measured - agreement.predicted < agreement.high + 0.01
    # The population's Pearson correlations, which the rank correlations approach from below.
    variance = 1.5**2
    assert found.single.predicted == pytest.approx(np.sqrt(1 / (1 + variance) / (1 + variance / 6)), abs=0.03)
    assert found.mean.predicted == pytest.approx(np.sqrt(1 / (1 + variance / 3) / (1 + variance / 6)), abs=0.03)


def test_seeds_that_are_not_independent_are_found_out():
    """All seeds of the first set share an error of their subset: the ceiling is too high, and fresh seeds tell."""
    _, masks, outputs = world(seeds=6, noise=1.0)
    outputs[:, :4] += 1.5 * np.random.default_rng(5).normal(size=(400, 1, 30))
    runs, fresh = make_runs(masks, outputs[:, :4]), make_runs(masks, outputs[:, 4:], design="fresh")
    found = seed_check(runs, fresh, resamples=200)
    assert not found.single.confirmed
    assert found.single.measured < found.single.predicted - 0.1


def test_subsets_are_matched_by_their_masks():
    _, masks, outputs = world(s=40, t=3, seeds=4)
    runs = make_runs(masks, outputs[:, :3])
    order = np.random.default_rng(0).permutation(40)[:25]
    fresh = make_runs(masks[order], outputs[order, 3:], design="fresh")
    found = seed_check(runs, fresh, resamples=10)
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
