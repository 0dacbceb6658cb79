"""The jackknife's covariances against their definition written out, and against variances that are known."""

import numpy as np
import pytest

from estimators.scores.jackknife import Jackknife

NOTHING = Jackknife.of(2)


def literal(a, b):
    """Return the three parts of the definition: of the subsets, of the queries, and of the noise within the latter."""
    g, t = len(a) - 1, len(a[0])

    def left_out(x, y):
        return (g - 1) / g * sum((x[i] - np.mean(x)) * (y[i] - np.mean(y)) for i in range(g))

    subsets = left_out([row.mean() for row in a[1:]], [row.mean() for row in b[1:]])
    noise = np.mean([left_out(a[1:, q], b[1:, q]) for q in range(t)])
    queries = sum((a[0, q] - a[0].mean()) * (b[0, q] - b[0].mean()) for q in range(t)) / (t - 1)
    return subsets, queries, noise


def test_the_covariance_equals_its_definition():
    a, b = np.random.default_rng(0).normal(size=(2, 8, 5))
    for one, other in ((a, b), (a, a + b)):
        subsets, queries, noise = literal(one, other)
        assert NOTHING.covariance(one, other) == pytest.approx(subsets + (queries - noise) / 5)


def test_queries_that_differ_by_less_than_their_noise_add_nothing_to_a_variance():
    a = np.random.default_rng(0).normal(size=(8, 5))
    a[0] = 0.3
    subsets, queries, noise = literal(a, a)
    assert queries < noise
    assert NOTHING.covariance(a, a) == pytest.approx(subsets)
    assert NOTHING.covariance(a, a.copy()) == pytest.approx(subsets + (queries - noise) / 5)


def test_of_one_query_there_is_the_noise_of_the_subsets_alone():
    a = np.array([[9.0], [1.0], [2.0], [6.0]])
    assert NOTHING.covariance(a, a) == pytest.approx(2 / 3 * (4 + 1 + 9))


def test_the_correlation_is_within_its_bounds_and_zero_of_what_does_not_vary():
    a, b = np.random.default_rng(0).normal(size=(2, 8, 5))
    variances = NOTHING.covariance(a, a) * NOTHING.covariance(b, b)
    assert NOTHING.correlation(a, b) == pytest.approx(NOTHING.covariance(a, b) / np.sqrt(variances))
    assert NOTHING.correlation(a, np.ones((8, 5))) == 0
    # The noise of the queries is opposed, the queries are not: what is left of it adds to a covariance and to no variance.
    noise = np.array([[0.0, 0.0], [1.0, -0.9], [-1.0, 0.9]])
    up, down = noise + np.array([0.1, 0.0]), np.array([0.1, 0.0]) - noise
    assert NOTHING.covariance(up, down) ** 2 > NOTHING.covariance(up, up) * NOTHING.covariance(down, down) > 0
    assert NOTHING.correlation(up, down) == 1
    assert NOTHING.correlation(up, -down) == -1


def test_it_counts_what_queries_share_once():
    """Means of x[subset] + y[query] + z[subset, query]: the variance of their mean is known."""
    rng, s, t, trials = np.random.default_rng(0), 40, 30, 300
    jackknife, means, told = Jackknife.of(s), [], []
    for _ in range(trials):
        values = 0.3 * rng.normal(size=(s, 1)) + 0.5 * rng.normal(size=(1, t)) + 2 * rng.normal(size=(s, t))
        statistic = jackknife.counts @ values / jackknife.counts.sum(1, keepdims=True)
        means.append(statistic[0].mean())
        told.append(jackknife.covariance(statistic, statistic))
    exact = 0.3**2 / s + 0.5**2 / t + 2**2 / (s * t)
    assert np.mean(told) == pytest.approx(exact, rel=0.1)
    assert np.var(means) == pytest.approx(exact, rel=0.25)


def test_each_of_few_subsets_is_left_out():
    assert Jackknife.of(3).counts.tolist() == [[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert Jackknife.of(100).counts.shape == (101, 100)


def test_groups_of_many_subsets_are_left_out():
    counts = Jackknife.of(1001).counts
    assert counts.shape == (101, 1001)
    assert (counts[0] == 1).all()
    assert (counts[1:].sum(0) == 99).all()
    assert sorted(set(counts[1:].sum(1))) == [990, 991]
