"""Enumeration against literal loops over subsets and over orders, and against closed forms."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.retraining_based.shapley import BetaShapley, Shapley
from estimators.values.enumeration import Enumeration, coefficients
from estimators.values.semivalue_weights import banzhaf_sizes, beta_sizes, shapley_sizes
from workers.errors import DataError

SIZES = {"shapley": shapley_sizes, "banzhaf": banzhaf_sizes, "beta": lambda n: beta_sizes(n, 4, 1)}


def all_masks(n):
    return (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1


def worths(game):
    return np.array([game.worth(np.flatnonzero(mask)) for mask in all_masks(game.n)])[:, None]


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("name", ["additive", "airport", "majority", "shoes"])
def test_equals_a_loop_over_subsets(game, by_subsets, name, kind):
    task = game(name, 5)
    sizes = SIZES[kind](5)
    found = Enumeration(worths(task), None, np.inf).semivalue(sizes)[0][:, 0]
    np.testing.assert_allclose(found, by_subsets(task, sizes), atol=1e-12)


def test_closed_forms(game, by_orders):
    def shapley(name, n):
        return (coefficients(shapley_sizes(n)) @ worths(game(name, n)))[:, 0]

    np.testing.assert_allclose(shapley("additive", 12), 0.5 * np.arange(12) - 0.7, atol=1e-12)
    np.testing.assert_allclose(shapley("majority", 11), 1 / 11, atol=1e-12)
    np.testing.assert_allclose(shapley("shoes", 4), 0.5, atol=1e-12)
    costs = np.arange(10) // 2 + 1.0
    steps = np.diff(costs, prepend=0) / np.arange(10, 0, -1)
    np.testing.assert_allclose(shapley("airport", 10), np.cumsum(steps)[np.arange(10) | 1], atol=1e-12)
    np.testing.assert_allclose(shapley("shoes", 6), by_orders(game("shoes", 6)), atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=16, max_size=16))
def test_the_axioms(values):
    n, worth = 4, np.array(values)
    shapley = coefficients(shapley_sizes(n)) @ worth
    np.testing.assert_allclose(shapley.sum(), worth[-1] - worth[0], atol=1e-12)
    index = np.arange(16)
    swapped = (index & ~3) | ((index & 1) << 1) | ((index >> 1) & 1)
    for sizes in SIZES.values():
        c = coefficients(sizes(n))
        symmetric = c @ (worth + worth[swapped])
        np.testing.assert_allclose(symmetric[0], symmetric[1], atol=1e-12)
        null = c @ worth[index & ~4]
        np.testing.assert_allclose(null[2], 0, atol=1e-12)
        dummy = c @ (worth[index & ~4] + 3.0 * ((index & 4) > 0))
        np.testing.assert_allclose(dummy[2], 3, atol=1e-12)


def test_the_estimator_enumerates_an_explicit_design(game, runs_of, evidence_with, by_orders):
    task = game("airport", 4)
    order = np.random.default_rng(0).permutation(np.arange(1, 16))
    found = Shapley().attribute(evidence_with(task, runs_of(task, "explicit", all_masks(4)[order])))
    np.testing.assert_allclose(found.values, task.true(by_orders(task)), atol=1e-6)
    np.testing.assert_allclose(found.utility, 1.5 * by_orders(task), atol=1e-6)
    assert found.standard_error is None
    assert found.utility_standard_error is None
    assert (found.models, found.details) == (15, {"exact": True, "subsets": 16})
    beta = BetaShapley(alpha=1, beta=1).attribute(evidence_with(task, runs_of(task, "explicit", all_masks(4))))
    np.testing.assert_allclose(beta.values, found.values, atol=1e-6)


def test_errors_come_from_the_seeds(game, runs_of, evidence_with):
    task = game("airport", 3, noise=0.5)
    runs = runs_of(task, "explicit", all_masks(3), seeds=4)
    found = Shapley().attribute(evidence_with(task, runs))
    c = coefficients(shapley_sizes(3))
    by_subset = runs.outputs.astype(float).reshape(8, 4, 2)
    np.testing.assert_allclose(found.values, np.einsum("is,srt->it", c, by_subset) / 4, atol=1e-6)
    variance = by_subset.var(axis=1, ddof=1) / 4
    np.testing.assert_allclose(found.standard_error, np.sqrt(c**2 @ variance), rtol=1e-5)
    utility = by_subset.mean(axis=2).var(axis=1, ddof=1) / 4
    np.testing.assert_allclose(found.utility_standard_error, np.sqrt(c**2 @ utility), rtol=1e-5)
    assert found.degrees_of_freedom == 24


def test_missing_subsets_are_refused(game, runs_of, evidence_with):
    task = game("airport", 3)
    runs = runs_of(task, "explicit", all_masks(3)[1:])
    with pytest.raises(DataError, match="1 of the 8 subsets of 3 examples have no finished run"):
        Shapley().attribute(evidence_with(task, runs, empty=False))
    given = Shapley(empty=0.0).attribute(evidence_with(task, runs, empty=False))
    np.testing.assert_allclose(given.values.sum(0), [2, 4], atol=1e-6)
    with pytest.raises(DataError, match="13 examples, exact enumeration takes at most 12"):
        Shapley().attribute(evidence_with(game("airport", 13), runs_of(game("airport", 13), "explicit", np.ones(13))))
    torn = dataclasses.replace(runs, masks=runs.masks[:5], outputs=runs.outputs[:5])
    with pytest.raises(DataError, match="2 of the 8"):
        Enumeration.of(torn, np.zeros(2))
