"""kNN-Shapley against enumeration of its utility over all subsets."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.baselines.knn_shapley import knn_shapley, nearest_values
from estimators.registry import find
from workers import Queries
from workers.errors import ConfigError


def weight_of(distance, distances, k, weights):
    if weights == "uniform":
        return 1.0
    width = np.sort(distances)[min(k, len(distances)) - 1]
    return float(distance == 0) if width == 0 else np.exp(-(distance**2) / (2 * width**2))


def brute_force(train, labels, query, wanted, k, weights):
    """Shapley values (n,) of the nearest-neighbour utility by a loop over all subsets."""
    n = len(train)
    distances = np.array([np.sqrt(((x - query) ** 2).sum()) for x in train])

    def utility(subset):
        near = sorted(subset, key=lambda j: (distances[j], j))[:k]
        return sum(weight_of(distances[j], distances, k, weights) * (labels[j] == wanted) for j in near) / k

    found = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for s in range(n):
            gains = [utility((*subset, i)) - utility(subset) for subset in combinations(others, s)]
            found[i] += sum(gains) / (n * comb(n - 1, s))
    return found


@pytest.mark.parametrize("weights", ["uniform", "gaussian"])
@pytest.mark.parametrize("k", [1, 2, 5, 7, 9])
def test_equals_brute_force(monkeypatch, k, weights):
    monkeypatch.setattr("estimators.baselines.knn_shapley._BLOCK", 14)
    rng = np.random.default_rng(k)
    train, labels = rng.normal(size=(7, 2)), rng.integers(0, 2, 7)
    train[3] = train[5]
    queries, wanted = np.vstack([rng.normal(size=(4, 2)), train[3]]), rng.integers(0, 2, 5)
    found = nearest_values(train, labels, queries, wanted, k, weights)
    for q in range(5):
        np.testing.assert_allclose(
            found[:, q], brute_force(train, labels, queries[q], wanted[q], k, weights), atol=1e-12
        )


def test_where_the_nearest_coincide_with_the_query_only_they_have_weight():
    train = np.array([[0.0], [0.0], [1.0], [2.0]])
    found = nearest_values(train, np.zeros(4, int), np.zeros((1, 1)), np.zeros(1, int), 2, "gaussian")
    np.testing.assert_allclose(found[:, 0], brute_force(train, np.zeros(4), np.zeros(1), 0, 2, "gaussian"), atol=1e-12)
    np.testing.assert_allclose(found[:, 0], [0.5, 0.5, 0, 0], atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 50))
def test_efficiency_and_order(votes, k):
    votes = np.array([votes])
    values = knn_shapley(votes, k)
    np.testing.assert_allclose(values.sum(), votes[0, :k].sum() / k, atol=1e-12)
    assert (np.sign(-np.diff(values[0]).round(12)) * np.sign(-np.diff(votes[0])) >= 0).all()


def test_the_estimator_reads_inputs_labels_and_direction(toy, evidence_of):
    task = toy("classification")
    found = find("knn_shapley")(k=3).attribute(evidence_of(task, "margin", models=0))
    train, queries = task.train_inputs.numpy(), task.query_inputs.numpy()
    expected = nearest_values(train, task.train_targets.numpy(), queries, task.query_targets.numpy(), 3)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    np.testing.assert_allclose(found.utility, expected.mean(axis=1), atol=1e-6)
    assert (found.models, found.fitted_on, found.standard_error) == (0, (), None)
    loss = find("knn_shapley")(k=3).attribute(evidence_of(task, "loss", models=0))
    np.testing.assert_array_equal(loss.values, -found.values)
    assert (found.details["direction"], loss.details["direction"]) == (1, -1)


def test_representations_of_the_reference_models_are_averaged_over(toy, evidence_of):
    task = toy("classification", hidden=4)
    evidence = evidence_of(task, "margin", queries=Queries("train", (3, 8)))
    found = find("knn_shapley")(k=2, features="representation", weights="gaussian").attribute(evidence)
    expected = 0.0
    for reference in evidence.references:
        state = reference.checkpoints[-1].state
        hidden = torch.tanh(task.train_inputs @ state["0.weight"].T + state["0.bias"]).numpy()
        labels = task.train_targets.numpy()
        expected = expected + nearest_values(hidden, labels, hidden[[3, 8]], labels[[3, 8]], 2, "gaussian") / 2
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.models == 2
    with pytest.raises(ConfigError, match="needs 3 reference model"):
        find("knn_shapley")(features="representation", models=3).attribute(evidence)


def test_what_has_no_classes_is_refused(toy, evidence_of):
    with pytest.raises(ConfigError, match="needs a Classification task, found ToyRegression"):
        find("knn_shapley")().attribute(evidence_of(toy("regression"), "prediction", models=0))
