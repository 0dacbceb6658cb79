"""Ranks and correlations against SciPy on the resample written out."""

from importlib import import_module

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from estimators.scores.bootstrap import Resamples
from estimators.scores.spearman import MidRanks, query_blocks, resampled_pairs, resampled_spearman, spearman


def reference(x, y):
    """SciPy's correlation of two vectors, 0 when either is constant."""
    return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else stats.spearmanr(x, y).statistic


def tied(rng, s, t):
    """Columns without ties, with some, with many, and constant."""
    values = rng.normal(size=(s, t))
    values[:, 1::4] = values[:, 1::4].round(1)
    values[:, 2::4] = values[:, 2::4] > 0
    values[:, 3::4] = 2.5
    return values


def test_equals_scipy_query_by_query():
    rng = np.random.default_rng(0)
    x, y = tied(rng, 40, 16), rng.permuted(tied(rng, 40, 16), axis=1)
    expected = [reference(x[:, q], y[:, q]) for q in range(16)]
    np.testing.assert_allclose(spearman(x, y), expected, rtol=0, atol=1e-14)


def test_every_resample_equals_scipy_on_the_rows_it_takes():
    rng = np.random.default_rng(1)
    x, y = tied(rng, 12, 8), rng.permuted(tied(rng, 12, 8), axis=1)
    drawn = Resamples.draw(12, 8, 30, seed=3)
    found = resampled_spearman(x, y, drawn.rows)
    for b, counts in enumerate(drawn.rows):
        taken = np.repeat(np.arange(12), counts)
        expected = [reference(x[taken, q], y[taken, q]) for q in range(8)]
        np.testing.assert_allclose(found[b], expected, rtol=0, atol=1e-14)


def test_a_correlation_is_never_beyond_one():
    x = np.random.default_rng(0).normal(size=(11, 300))
    counts = Resamples.draw(11, 1, 5, seed=0).rows
    for found in (resampled_spearman(x, x, counts), -resampled_spearman(x, -x, counts)):
        np.testing.assert_allclose(found, 1, atol=1e-12)
        assert found.max() == 1
    pairs = resampled_pairs(np.stack([x, x, x]), counts)
    np.testing.assert_allclose(pairs, 1, atol=1e-12)
    assert pairs.max() == 1


def test_blocks_of_queries_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    x, y = tied(rng, 10, 7), tied(rng, 10, 7)
    counts = Resamples.draw(10, 7, 5, seed=0).rows
    whole = resampled_spearman(x, y, counts)
    monkeypatch.setattr(import_module("estimators.scores.spearman"), "BLOCK", 30)
    np.testing.assert_array_equal(resampled_spearman(x, y, counts), whole)
    assert list(query_blocks(10, 7)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(query_blocks(40, 2)) == [slice(0, 1), slice(1, 2)]


def test_pairs_equal_the_mean_over_all_pairs():
    rng = np.random.default_rng(3)
    outputs = np.stack([tied(rng, 15, 8) for _ in range(4)])
    counts = Resamples.draw(15, 8, 6, seed=0).rows
    pairs = [(a, b) for a in range(4) for b in range(a)]
    expected = np.mean([resampled_spearman(outputs[a], outputs[b], counts) for a, b in pairs], axis=0)
    np.testing.assert_allclose(resampled_pairs(outputs, counts), expected, atol=1e-14)


@settings(deadline=None)
@given(
    arrays(np.float64, (9, 3), elements=st.integers(-3, 3).map(float)),
    st.lists(st.integers(0, 4), min_size=9, max_size=9),
)
def test_unit_ranks_are_the_average_ranks_centred_and_scaled(values, counts):
    counts = np.array(counts, dtype=float)
    taken = np.repeat(np.arange(9), counts.astype(int))
    if not len(taken):
        return
    found = MidRanks(values).unit(counts)
    for q in range(3):
        ranks = stats.rankdata(values[taken, q]) - (len(taken) + 1) / 2
        norm = np.linalg.norm(ranks) or 1.0
        full = (found[q] / np.sqrt(np.maximum(counts, 1)))[taken]
        np.testing.assert_allclose(full, ranks / norm, atol=1e-12)
