import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.curvature.gauss_newton import GaussNewton
from estimators.gradients.functional_model import Examples, Model
from workers.errors import ConfigError


def dense_oracle(task, checkpoint):
    """G by numpy from explicit Jacobians (autograd, one output at a time) and closed-form output Hessians."""
    module = task.module().double()
    module.load_state_dict(checkpoint.state)
    parameters = list(module.parameters())
    total = 0.0
    weights = np.ones(task.n) if task.train_weights is None else task.train_weights.numpy()
    for i in range(task.n):
        outputs = module(task.train_inputs[i : i + 1])[0]
        rows = [torch.autograd.grad(z, parameters, retain_graph=True) for z in outputs]
        jacobian = np.stack([np.concatenate([g.numpy().ravel() for g in row]) for row in rows])
        if task.train_targets.dtype == torch.int64:
            probability = outputs.detach().softmax(0).numpy()
            hessian = np.diag(probability) - np.outer(probability, probability)
        else:
            hessian = np.array([[2.0]])
        total = total + weights[i] * jacobian.T @ hessian @ jacobian
    return total / task.n


@pytest.fixture(scope="module", params=["classification", "regression"])
def case(request, toy, evidence_of):
    task = toy(request.param, hidden=4, weights=torch.linspace(0, 2, 24, dtype=torch.float64))
    checkpoint = evidence_of(task, "loss", models=1).references[0].checkpoints[-1]
    return task, Model(task, checkpoint, torch.float64), dense_oracle(task, checkpoint)


@settings(deadline=None, max_examples=15)
@given(budget=st.integers(1, 100_000))
def test_dense_and_product_equal_the_explicit_matrix_within_any_budget(case, budget):
    task, model, expected = case
    curvature = GaussNewton(model, task, Examples.training(task, torch.float64), budget)
    dense = curvature.dense()
    np.testing.assert_allclose(dense, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(dense, dense.T)
    vectors = torch.randn(3, model.p, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(curvature.product(vectors), vectors.numpy() @ expected, rtol=1e-9, atol=1e-12)


def test_flat_output_directions_are_dropped(case):
    task, model, _ = case
    blocks = list(GaussNewton(model, task, Examples.training(task, torch.float64), 2**24).roots())
    rank = 2 if task.train_targets.dtype == torch.int64 else 1  # adding a constant to all logits changes no loss
    assert [rows.shape for rows in blocks] == [(task.n, model.p)] * rank


def test_the_trace_is_estimated_without_the_matrix(case):
    task, model, expected = case
    curvature = GaussNewton(model, task, Examples.training(task, torch.float64), 2**20)
    assert curvature.estimated_trace(2000, seed=0) == pytest.approx(np.trace(expected), rel=0.1)
    assert curvature.estimated_trace(8, seed=1) == curvature.estimated_trace(8, seed=1)


def test_a_loss_concave_in_the_outputs_is_refused(case, monkeypatch):
    task, model, _ = case
    loss = task.loss
    monkeypatch.setattr(task, "loss", lambda z, y: -loss(z, y))
    curvature = GaussNewton(model, task, Examples.training(task, torch.float64), 2**20)
    with pytest.raises(ConfigError, match="not convex"):
        curvature.dense()
