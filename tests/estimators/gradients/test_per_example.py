import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.per_example import blocks, gradients, measure_to_differentiate, products
from workers.errors import ConfigError, TaskError
from workers.runs import Checkpoint, Queries

BUDGET = 2**20


@pytest.fixture(scope="module", params=["classification", "regression"])
def case(request, toy, evidence_of):
    task = toy(request.param, hidden=4, weights=torch.linspace(0, 2, 24, dtype=torch.float64))
    checkpoint = evidence_of(task, "loss", models=1).references[0].checkpoints[-1]
    return task, checkpoint, Model(task, checkpoint, torch.float64)


def test_gradients_of_the_weighted_loss_equal_autograd(case, autograd):
    task, checkpoint, model = case
    got = gradients(model, task.losses, Examples.training(task, torch.float64), BUDGET)
    expected = autograd(task, checkpoint, task.loss, task.train_inputs, task.train_targets)
    np.testing.assert_allclose(got, expected * task.train_weights.numpy()[:, None], rtol=1e-10, atol=1e-13)


def test_gradients_of_every_smooth_measure_equal_autograd(case, autograd):
    task, checkpoint, model = case
    queries = Examples.queried(task, Queries(), torch.float64)
    for name in set(task.measurements()) - {"correct"}:
        measure = measure_to_differentiate(task, name, model, queries)
        expected = autograd(task, checkpoint, task.measurement(name), task.query_inputs, task.query_targets)
        np.testing.assert_allclose(gradients(model, measure, queries, BUDGET), expected, rtol=1e-10, atol=1e-13)


@settings(deadline=None, max_examples=30)
@given(budget=st.integers(1, 200_000))
def test_the_budget_changes_nothing_but_rounding(case, budget):
    task, _, model = case
    examples = Examples.training(task, torch.float64)
    whole = gradients(model, task.losses, examples, BUDGET)
    pieces = list(blocks(model, task.losses, examples, budget))
    assert torch.allclose(torch.cat([rows for _, rows in pieces]), whole, rtol=1e-12, atol=1e-14)
    assert [i for where, _ in pieces for i in range(where.start, where.stop)] == list(range(24))
    row = model.p * 8
    assert all(len(rows) * row <= max(budget // 2, row) for _, rows in pieces)
    vectors = torch.ones(2, model.p, dtype=torch.float64)
    got = products(model, task.losses, examples, vectors, budget)
    assert torch.allclose(got, whole @ vectors.T, rtol=1e-12, atol=1e-14)


def test_dropout_is_off_and_batch_norm_uses_its_running_statistics(toy, autograd, monkeypatch):
    task = toy("classification")
    monkeypatch.setattr(
        task,
        "module",
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3)),
    )
    state = task.module().double().state_dict()
    state["1.running_mean"] += 0.3
    state["1.running_var"] *= 2.5
    checkpoint = Checkpoint(1, 1, 0.1, state)
    model = Model(task, checkpoint, torch.float64)
    got = gradients(model, task.losses, Examples.training(task, torch.float64), BUDGET)
    expected = autograd(task, checkpoint, task.loss, task.train_inputs, task.train_targets)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-13)


def test_a_measure_without_a_gradient_is_refused_and_the_others_named(toy):
    task = toy("classification")
    model = Model(task, Checkpoint(1, 1, 0.1, task.module().state_dict()), torch.float64)
    queries = Examples.queried(task, Queries(), torch.float64)
    with pytest.raises(ConfigError, match=r"'correct' has no gradient.*hard_margin, loss, margin, probability"):
        measure_to_differentiate(task, "correct", model, queries)
    with pytest.raises(TaskError, match="did you mean margin"):
        measure_to_differentiate(task, "margins", model, queries)
