"""Banzhaf values by maximum sample reuse, against loops over all subsets."""

import dataclasses
from itertools import combinations

import numpy as np
import pytest

from estimators.registry import find
from estimators.retraining_based.banzhaf import Banzhaf
from estimators.values.semivalue_weights import banzhaf_sizes
from workers.errors import DataError


def all_masks(n):
    return (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1


@pytest.mark.parametrize("name", ["additive", "airport", "majority", "shoes"])
@pytest.mark.parametrize("empty_drawn", [True, False])
def test_every_subset_once_gives_the_exact_value(game, runs_of, evidence_with, by_subsets, name, empty_drawn):
    task = game(name, 6)
    runs = runs_of(task, "bernoulli", all_masks(6)[0 if empty_drawn else 1 :])
    found = find("banzhaf")().attribute(evidence_with(task, runs))
    exact = by_subsets(task, banzhaf_sizes(6))
    np.testing.assert_allclose(found.values, task.true(exact), atol=1e-6)
    np.testing.assert_allclose(found.utility, 1.5 * exact, atol=1e-6)
    assert found.details["estimates"] == "Banzhaf"
    assert not found.details["without_empty_subset"]
    enumerated = Banzhaf().attribute(evidence_with(task, dataclasses.replace(runs, kind="explicit")))
    np.testing.assert_allclose(enumerated.values, task.true(exact), atol=1e-6)


def test_an_unknown_empty_subset_is_told(game, runs_of, evidence_with):
    task = game("additive", 5)
    runs = runs_of(task, "bernoulli", all_masks(5)[1:])
    found = Banzhaf().attribute(evidence_with(task, runs, empty=False))
    assert found.details["without_empty_subset"]
    given = Banzhaf(empty=0.0).attribute(evidence_with(task, runs, empty=False))
    assert not given.details["without_empty_subset"]
    np.testing.assert_allclose(given.values[:, 0], 0.5 * np.arange(5) - 0.7, atol=1e-6)


def test_errors_are_welchs(game, runs_of, evidence_with):
    task = game("airport", 8)
    masks = np.random.default_rng(0).random((50, 8)) < 0.5
    found = Banzhaf().attribute(evidence_with(task, runs_of(task, "bernoulli", masks, seeds=2)))
    worth = np.array([task.worth(np.flatnonzero(mask)) for mask in masks])
    for i in range(8):
        inside, outside = worth[masks[:, i]], worth[~masks[:, i]]
        error = np.sqrt(inside.var(ddof=1) / len(inside) + outside.var(ddof=1) / len(outside))
        np.testing.assert_allclose(found.standard_error[i], [error, 2 * error], rtol=1e-5)
        np.testing.assert_allclose(found.utility_standard_error[i], 1.5 * error, rtol=1e-5)
    assert (found.models, found.fitted_on) == (100, ("fit",))
    assert found.degrees_of_freedom == min(masks.sum(0).min(), 50 - masks.sum(0).max()) - 1


def test_half_size_subsets_give_what_an_example_adds_beyond_the_average_one(game, runs_of, evidence_with):
    half = [np.isin(np.arange(6), chosen) for chosen in combinations(range(6), 3)]
    task = game("additive", 6)
    found = Banzhaf().attribute(evidence_with(task, runs_of(task, "subsets", half)))
    worth = 0.5 * np.arange(6) - 0.7
    np.testing.assert_allclose(found.values, task.true(worth - worth.mean()), atol=1e-6)
    assert found.details["estimates"].startswith("relative")
    shoes = game("shoes", 6)
    values = Banzhaf().attribute(evidence_with(shoes, runs_of(shoes, "subsets", half))).values
    np.testing.assert_allclose(values.sum(0), 0, atol=1e-6)
    with pytest.raises(DataError, match="1 of 21 subsets are not of half the examples, set alpha"):
        Banzhaf().attribute(evidence_with(task, runs_of(task, "subsets", [*half, np.arange(6) < 2])))


def test_unfair_coins_are_refused(game, runs_of, evidence_with):
    task = game("additive", 30)
    masks = np.random.default_rng(0).random((100, 30)) < 0.6
    with pytest.raises(DataError, match=r"examples are in 0\.6.* need probability: 0.5"):
        Banzhaf().attribute(evidence_with(task, runs_of(task, "bernoulli", masks)))
    few = game("additive", 3)
    with pytest.raises(DataError, match="1 are in none of its subsets"):
        Banzhaf().attribute(evidence_with(few, runs_of(few, "bernoulli", [[1, 0, 1], [1, 0, 0], [0, 0, 1]])))
