from math import comb, isclose

import numpy as np
import pytest
from scipy.special import beta as beta_function

from estimators.values.semivalue_weights import banzhaf_sizes, beta_sizes, shapley_sizes


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("sizes", [shapley_sizes, banzhaf_sizes, lambda n: beta_sizes(n, 16, 1)])
def test_weights_sum_to_one(n, sizes):
    assert isclose(sizes(n).sum(), 1, rel_tol=1e-12)


def test_beta_of_one_and_one_is_shapley():
    np.testing.assert_allclose(beta_sizes(9, 1, 1), shapley_sizes(9), rtol=1e-12)


@pytest.mark.parametrize(("alpha", "beta"), [(16, 1), (1, 4), (2.5, 0.5)])
def test_beta_weights_are_the_papers(alpha, beta):
    n = 6
    j = np.arange(1, n + 1)
    w = n * np.array([comb(n - 1, k - 1) for k in j]) * beta_function(j + beta - 1, n - j + alpha)
    np.testing.assert_allclose(n * beta_sizes(n, alpha, beta), w / beta_function(alpha, beta), rtol=1e-10)


def test_a_large_alpha_looks_at_small_subsets():
    p = beta_sizes(10, 16, 1)
    assert (np.diff(p) < 0).all()


def test_banzhaf_weighs_all_subsets_alike():
    np.testing.assert_allclose(banzhaf_sizes(5) / [comb(4, s) for s in range(5)], 1 / 16, rtol=1e-12)
