import logging

import numpy as np
import pytest
import torch

from estimators.evidence import Evidence, Reference
from estimators.gradient_based.influence import Influence
from workers import Recipe
from workers.errors import ConfigError
from workers.runs import Checkpoint


def dense_ggn(task, checkpoint):
    """G by numpy, from Jacobians of autograd and the closed-form Hessian of the softmax or of the square."""
    module = task.module().double()
    module.load_state_dict(checkpoint.state)
    total = 0.0
    for x in task.train_inputs:
        z = module(x[None])[0]
        rows = [torch.autograd.grad(value, list(module.parameters()), retain_graph=True) for value in z]
        jacobian = np.stack([np.concatenate([g.numpy().ravel() for g in row]) for row in rows])
        s = z.detach().softmax(0).numpy()
        total = total + jacobian.T @ (np.diag(s) - np.outer(s, s) if len(z) > 1 else np.eye(1) * 2) @ jacobian
    return total / task.n


def oracle(evidence, autograd, damping):
    task, total, dampings = evidence.task, 0.0, []
    f = task.measurement(evidence.measure)
    for reference in evidence.references:
        last = reference.checkpoints[-1]
        g = autograd(task, last, task.loss, task.train_inputs, task.train_targets)
        q = autograd(task, last, f, task.query_inputs, task.query_targets)
        ggn = dense_ggn(task, last)
        dampings.append(0.1 * np.trace(ggn) / len(ggn) if damping == "auto" else damping)
        total = total - g @ np.linalg.solve(ggn + dampings[-1] * np.eye(len(ggn)), q.T) / task.n
    return total / len(evidence.references), dampings


@pytest.fixture(scope="module", params=[("classification", "margin"), ("regression", "squared_error")])
def evidence(request, toy, evidence_of):
    kind, measure = request.param
    return evidence_of(toy(kind, hidden=4), measure)


@pytest.mark.parametrize("damping", ["auto", 0.05])
def test_exact_equals_the_explicit_inverse(evidence, autograd, damping):
    expected, dampings = oracle(evidence, autograd, damping)
    got = Influence(damping=damping).attribute(evidence)
    np.testing.assert_allclose(got.values, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(got.details["damping"], dampings, rtol=1e-9)
    assert got.details["solver"] == ["exact", "exact"]
    assert got.details["largest_residual"] < 1e-10
    assert got.models == 2


@pytest.mark.parametrize("memory", [2.0, 1e-6])
def test_conjugate_gradients_equal_exact_in_any_budget(evidence, memory):
    exact = Influence(damping=0.05).attribute(evidence).values
    got = Influence(damping=0.05, solver="cg", tolerance=1e-8, memory_gb=memory).attribute(evidence)
    np.testing.assert_allclose(got.values, exact, rtol=1e-4, atol=1e-5 * np.abs(exact).max())
    assert got.details["unconverged"] == 0
    assert 0 < got.details["iterations"] <= 40
    assert got.details["largest_residual"] <= 2e-8


def test_automatic_damping_needs_no_matrix(evidence):
    exact = Influence().attribute(evidence).details["damping"]
    estimated = Influence(solver="cg").attribute(evidence).details["damping"]
    np.testing.assert_allclose(estimated, exact, rtol=0.5)


def test_non_convergence_is_told(evidence, caplog, monkeypatch):
    # Who configures logging in the same process may have turned loggers off that were there before.
    for name, value in (("disabled", False), ("propagate", True)):
        monkeypatch.setattr(logging.getLogger(Influence.__module__), name, value)
    with caplog.at_level(logging.WARNING, logger=Influence.__module__):
        got = Influence(damping=1e-8, solver="cg", max_iterations=2).attribute(evidence)
    assert got.details["unconverged"] == 10
    assert got.details["iterations"] == 2
    assert "10 of 10 solves did not reach" in caplog.text


def test_a_singular_matrix_without_damping_is_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification"), "margin", models=1)  # logits have a flat direction
    evidence.references[0].checkpoints[-1].state["weight"].zero_()
    evidence.task.train_inputs[:, 0] = 0  # a feature that is never there
    with pytest.raises(ConfigError, match="damping 0 is not positive definite: expected a larger damping"):
        Influence(damping=0.0).attribute(evidence)


def test_a_twin_of_the_query_helps(toy, evidence_of):
    task = toy("classification", hidden=4)
    task.train_inputs[0], task.train_targets[0] = task.query_inputs[2], task.query_targets[2]
    assert Influence().attribute(evidence_of(task, "margin")).values[0, 2] > 0
    assert Influence().attribute(evidence_of(task, "loss")).values[0, 2] < 0


def test_for_ridge_regression_it_is_the_leave_one_out_effect_up_to_the_leverage(toy):
    """theta minimizes (1/n) sum of (x theta - y)^2 + (d/2) |theta|^2.

    Without the term of i (and n kept) the minimum moves by exactly the first-order effect / (1 - h_i), with h_i the leverage
    2/n x_i^T A^-1 x_i; the derivative with respect to i's weight is the first-order effect itself.
    """
    decay, n = 0.3, 24
    task = toy("regression", recipe=Recipe(weight_decay=decay, precision="float64"))
    x, y = np.c_[task.train_inputs.numpy(), np.ones(n)], task.train_targets.numpy()
    queries = np.c_[task.query_inputs.numpy(), np.ones(5)]

    def solve(weights):
        a = 2 / n * (x.T * weights) @ x + decay * np.eye(4)
        return np.linalg.solve(a, 2 / n * x.T @ (weights * y)), a

    theta, a = solve(np.ones(n))
    state = {"weight": torch.from_numpy(theta[None, :3]), "bias": torch.from_numpy(theta[3:])}
    reference = Reference(0, (Checkpoint(1, 3, 0.1, state),))
    evidence = Evidence(n, 5, "prediction", references=(reference,), task=task)
    got = Influence(damping=0.0).attribute(evidence).values
    for i in range(n):
        without = np.ones(n)
        without[i] = 0
        leverage = 2 / n * x[i] @ np.linalg.solve(a, x[i])
        effect = queries @ (theta - solve(without)[0])
        np.testing.assert_allclose(got[i] / (1 - leverage), effect, rtol=1e-4, atol=1e-6)
        nudged = np.ones(n)
        nudged[i] = 1 + 1e-6
        derivative = queries @ (solve(nudged)[0] - theta) / 1e-6
        np.testing.assert_allclose(got[i], derivative, rtol=1e-3, atol=1e-6)
    assert not np.allclose(Influence(damping=0.0, weight_decay=False).attribute(evidence).values, got, rtol=0.05)
