"""Difference in means against a literal double loop, and an additive game where its expectation is known."""

import numpy as np
import pytest

from estimators.evidence import Evidence, Runs
from estimators.registry import find
from estimators.retraining_based.difference_in_means import DifferenceInMeans
from workers.errors import ConfigError, DataError


def evidence(masks, outputs, subsets=None, repeats=None, kind="subsets", **more):
    m = len(masks)
    runs = Runs(
        design="fit",
        kind=kind,
        measure="margin",
        masks=masks,
        outputs=outputs.astype(np.float32),
        subsets=np.arange(m) if subsets is None else subsets,
        repeats=np.zeros(m, int) if repeats is None else repeats,
    )
    return Evidence(n=masks.shape[1], t=outputs.shape[1], measure="margin", runs={"fit": runs, **more})


def literal(masks, outputs):
    """Means and Welch errors by the book, one example and one query at a time."""
    n, t = masks.shape[1], outputs.shape[1]
    tau, error = np.empty((n, t)), np.empty((n, t))
    for i in range(n):
        for q in range(t):
            inside, outside = outputs[masks[:, i], q], outputs[~masks[:, i], q]
            tau[i, q] = inside.mean() - outside.mean()
            error[i, q] = np.sqrt(inside.var(ddof=1) / len(inside) + outside.var(ddof=1) / len(outside))
    return tau, error


@pytest.mark.parametrize("block", [1 << 24, 100])
def test_equals_a_double_loop(monkeypatch, block):
    monkeypatch.setattr("estimators.retraining_based.difference_in_means._BLOCK", block)
    rng = np.random.default_rng(0)
    masks, outputs = rng.random((30, 9)) < 0.5, rng.normal(size=(30, 4)) + 100
    outputs = outputs.astype(np.float32).astype(float)
    found = find("difference_in_means")().attribute(evidence(masks, outputs))
    tau, error = literal(masks, outputs)
    np.testing.assert_allclose(found.values, tau, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-5)
    assert found.values.dtype == found.standard_error.dtype == np.float32
    assert (found.fitted_on, found.models) == (("fit",), 30)
    assert found.details["subsets"] == 30
    assert found.details["without_standard_error"] == 0


def test_seeds_of_a_subset_are_one_observation():
    rng = np.random.default_rng(1)
    masks, outputs = rng.random((20, 6)) < 0.5, rng.normal(size=(20, 3, 2)).astype(np.float32)
    order = rng.permutation(60)
    subsets, repeats = np.repeat(np.arange(20), 3), np.tile(np.arange(3), 20)
    found = DifferenceInMeans().attribute(
        evidence(np.repeat(masks, 3, 0)[order], outputs.reshape(60, 2)[order], subsets[order], repeats[order])
    )
    tau, error = literal(masks, outputs.astype(float).mean(1))
    np.testing.assert_allclose(found.values, tau, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-4)
    assert found.models == 60


def test_unbiased_on_an_additive_game_with_honest_errors():
    """f(S) = sum of w_i over S plus noise: the estimate is w within its error, for independent inclusion."""
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(40, 5))
    masks = rng.random((4000, 40)) < 0.3
    outputs = masks @ weights + rng.normal(size=(4000, 5))
    found = DifferenceInMeans().attribute(evidence(masks, outputs, kind="bernoulli"))
    z = (found.values - weights) / found.standard_error
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert 0.85 < z.std() < 1.15


def test_subsets_of_one_size_measure_against_the_other_examples():
    """All subsets of 3 of 6: the exact expectation is w_i minus the mean of the other weights."""
    from itertools import combinations

    masks = np.array([[i in chosen for i in range(6)] for chosen in combinations(range(6), 3)])
    weights = np.random.default_rng(3).normal(size=(6, 2))
    found = DifferenceInMeans().attribute(evidence(masks, masks @ weights))
    others = (weights.sum(0) - weights) / 5
    np.testing.assert_allclose(found.values, weights - others, atol=1e-5)


def test_an_example_on_one_side_of_all_subsets_is_refused():
    masks = np.random.default_rng(4).random((10, 6)) < 0.5
    masks[0], masks[1] = True, False
    masks[:, 1], masks[:, [2, 4]] = False, True
    with pytest.raises(DataError, match="of 6 examples 1 are in none of its subsets and 2 in all"):
        DifferenceInMeans().attribute(evidence(masks, np.zeros((10, 2))))


def test_a_single_inclusion_has_a_value_but_no_error():
    masks = np.random.default_rng(5).random((12, 4)) < 0.5
    masks[0], masks[1] = True, False
    masks[2:, 3] = False
    outputs = np.random.default_rng(6).normal(size=(12, 2)).astype(np.float32)
    found = DifferenceInMeans().attribute(evidence(masks, outputs))
    np.testing.assert_allclose(found.values[3], outputs[0] - outputs[1:].mean(0), rtol=1e-5)
    assert np.isnan(found.standard_error[3]).all()
    assert np.isfinite(found.standard_error[:3]).all()
    assert found.details["without_standard_error"] == 1


def test_design_chooses_among_several():
    masks = np.array([[True, False], [False, True]])
    first = evidence(masks, np.array([[1.0], [0.0]]))
    other = Runs(
        "more", "bernoulli", "margin", masks, np.array([[5.0], [0.0]], np.float32), np.arange(2), np.zeros(2, int)
    )
    both = Evidence(n=2, t=1, measure="margin", runs={**first.runs, "more": other})
    with pytest.raises(ConfigError, match="name it with `design:`"):
        DifferenceInMeans().attribute(both)
    np.testing.assert_allclose(DifferenceInMeans(design="more").attribute(both).values, [[5], [-5]])
