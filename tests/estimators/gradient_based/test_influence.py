import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from estimators.evidence import Evidence, Reference
from estimators.gradient_based.influence import Influence
from workers import Classification, Recipe
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


def unrolled(task):
    """One over the time of training: lr .3, 4 epochs of 3 batches, no momentum."""
    assert (task.recipe.lr, task.recipe.epochs, task.recipe.batch_size, task.recipe.momentum) == (0.3, 4, 8, 0)
    return 1 / (0.3 * 4 * 3)


def oracle(evidence, autograd, damping):
    task, total, dampings = evidence.task, 0.0, []
    f = task.measurement(evidence.measure)
    for reference in evidence.references:
        last = reference.checkpoints[-1]
        g = autograd(task, last, task.loss, task.train_inputs, task.train_targets)
        q = autograd(task, last, f, task.query_inputs, task.query_targets)
        ggn = dense_ggn(task, last)
        own = {"mean_eigenvalue": 0.1 * np.trace(ggn) / len(ggn), "auto": unrolled(task)}
        dampings.append(own.get(damping, damping))
        total = total - g @ np.linalg.solve(ggn + dampings[-1] * np.eye(len(ggn)), q.T) / task.n
    return total / len(evidence.references), dampings


@pytest.fixture(scope="module", params=[("classification", "margin"), ("regression", "squared_error")])
def evidence(request, toy, evidence_of):
    kind, measure = request.param
    return evidence_of(toy(kind, hidden=4), measure)


@pytest.mark.parametrize("damping", ["auto", "mean_eigenvalue", 0.05])
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


def test_the_mean_eigenvalue_needs_no_matrix(evidence):
    exact = Influence(damping="mean_eigenvalue").attribute(evidence).details["damping"]
    estimated = Influence(damping="mean_eigenvalue", solver="cg").attribute(evidence).details["damping"]
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


def parts(evidence):
    """By reference: per-example gradients of loss (n, p) and measure (t, p), and the model in float64, by plain autograd."""
    task = evidence.task
    for reference in evidence.references:
        module = task.module().double()
        module.load_state_dict(reference.checkpoints[-1].state)
        parameters = list(module.parameters())

        def gradient(f, x, y, module=module, parameters=parameters, graph=False):
            value = f(module(x[None]), y[None]).sum()
            found = torch.autograd.grad(value, parameters, create_graph=graph, retain_graph=graph)
            return torch.cat([one.flatten() for one in found])

        yield module, parameters, gradient


def hessian_oracle(evidence, damping):
    task, total = evidence.task, 0.0
    f = task.measurement(evidence.measure)
    for _, parameters, gradient in parts(evidence):
        g = torch.stack([gradient(task.loss, x, y) for x, y in zip(task.train_inputs, task.train_targets, strict=True)])
        q = torch.stack([gradient(f, x, y) for x, y in zip(task.query_inputs, task.query_targets, strict=True)])
        mean = sum(
            gradient(task.loss, x, y, graph=True) for x, y in zip(task.train_inputs, task.train_targets, strict=True)
        )
        rows = [torch.autograd.grad(value / task.n, parameters, retain_graph=True) for value in mean]
        hessian = torch.stack([torch.cat([one.flatten() for one in row]) for row in rows]).numpy()
        total = total - g.numpy() @ np.linalg.solve(hessian + damping * np.eye(len(hessian)), q.numpy().T) / task.n
    return total / len(evidence.references)


def fisher_oracle(evidence, damping):
    task, total = evidence.task, 0.0
    f = task.measurement(evidence.measure)
    for _, _, gradient in parts(evidence):
        g = torch.stack([gradient(task.loss, x, y) for x, y in zip(task.train_inputs, task.train_targets, strict=True)])
        q = torch.stack([gradient(f, x, y) for x, y in zip(task.query_inputs, task.query_targets, strict=True)])
        fisher = (g.T @ g / task.n).numpy()
        total = total - g.numpy() @ np.linalg.solve(fisher + damping * np.eye(len(fisher)), q.numpy().T) / task.n
    return total / len(evidence.references)


ORACLES = {
    "gauss_newton": lambda evidence, autograd, damping: oracle(evidence, autograd, damping)[0],
    "hessian": lambda evidence, _, damping: hessian_oracle(evidence, damping),
    "empirical_fisher": lambda evidence, _, damping: fisher_oracle(evidence, damping),
}
EVERYTHING = {
    "exact": {},
    "cg": {"tolerance": 1e-9},
    "arnoldi": {"rank": 1000},
    "nystroem": {"rank": 1000},
    "lissa": {"depth": 80, "tolerance": 1e-5},
}
"""Options with which a solver answers as the dense inverse does."""


@pytest.mark.parametrize("curvature", ORACLES)
@pytest.mark.parametrize("solver", EVERYTHING)
def test_every_curvature_by_every_solver_is_the_explicit_inverse(evidence, autograd, curvature, solver):
    if (curvature, solver) == ("hessian", "nystroem"):
        pytest.skip("refused: it may have negative eigenvalues")
    damping = 3.0 if curvature == "hessian" else 1.0  # a network's has eigenvalues below 0
    expected = ORACLES[curvature](evidence, autograd, damping)
    got = Influence(curvature=curvature, solver=solver, damping=damping, **EVERYTHING[solver]).attribute(evidence)
    np.testing.assert_allclose(got.values, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert got.details["solver"] == [solver] * 2
    assert got.details["curvature"] == curvature
    assert got.details["unconverged"] == 0
    assert got.details["largest_residual"] < 1e-5
    assert ("scale" in got.details) == (solver == "lissa")


def test_the_sampled_fisher_comes_to_the_gauss_newton_matrix(evidence):
    exact = Influence(damping=0.3).attribute(evidence).values

    def off(samples):
        got = Influence(damping=0.3, curvature="fisher", samples=samples).attribute(evidence).values
        return np.linalg.norm(got - exact) / np.linalg.norm(exact)

    if evidence.measure == "squared_error":  # one output: the square of a sign is 1
        assert off(1) < 1e-6
    else:
        assert off(400) < 0.25 * off(1)  # expected: one over the root of the number of draws, a twentieth


def test_an_indefinite_hessian_is_refused(toy, evidence_of):
    evidence = evidence_of(toy("regression", hidden=4), "squared_error", models=1)
    with pytest.raises(ConfigError, match=r"damping 0\.01 is not positive definite"):
        Influence(curvature="hessian", damping=0.01).attribute(evidence)
    got = Influence(curvature="hessian", damping=0.01, solver="cg").attribute(evidence)
    assert got.details["unconverged"] > 0


@pytest.mark.parametrize(
    "options", [{"preconditioner": "diagonal"}, {"preconditioner": "nystroem", "rank": 5}, {"preconditioner": "ekfac"}]
)
def test_a_preconditioner_changes_no_answer(evidence, options):
    exact = Influence(damping=0.01).attribute(evidence).values
    got = Influence(damping=0.01, solver="cg", tolerance=1e-8, **options).attribute(evidence)
    np.testing.assert_allclose(got.values, exact, rtol=1e-4, atol=1e-5 * np.abs(exact).max())
    plain = Influence(damping=0.01, solver="cg", tolerance=1e-8).attribute(evidence)
    if "rank" in options:
        assert got.details["iterations"] < plain.details["iterations"]


@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_float32_is_near_float64(evidence, solver):
    double = Influence(damping=0.05, solver=solver).attribute(evidence).values
    single = Influence(damping=0.05, solver=solver, precision="float32").attribute(evidence).values
    assert not np.array_equal(single, double)
    np.testing.assert_allclose(single, double, atol=5e-3 * np.abs(double).max())


def test_the_default_tolerance_leaves_the_order(evidence):
    exact = Influence(solver="exact").attribute(evidence).values
    got = Influence(solver="cg").attribute(evidence)
    assert got.details["unconverged"] == 0
    np.testing.assert_allclose(got.values, exact, atol=5e-3 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preconditioner": "nystroem"}, "preconditioner goes with solver cg, found auto"),
        ({"solver": "exact", "max_iterations": 5}, "max_iterations goes with solver auto or cg, found exact"),
        ({"solver": "cg", "rank": 5}, "rank goes with solver arnoldi or nystroem, found cg"),
        ({"solver": "cg", "depth": 5}, "depth goes with solver lissa, found cg"),
        ({"scale": 5.0}, "scale goes with solver lissa, found auto"),
        ({"samples": 2}, "samples goes with curvature fisher, found gauss_newton"),
        ({"solver": "nystroem", "curvature": "hessian"}, "nystroem needs a curvature without negative eigenvalues"),
        ({"solver": "cg", "preconditioner": "nystroem", "curvature": "hessian"}, "nystroem needs a curvature without"),
        ({"solver": "cg", "preconditioner": "diagonal", "curvature": "hessian"}, "takes a product for every parameter"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Influence(**options)


def test_a_subspace_beyond_memory_is_refused(evidence):
    for options in ({"solver": "arnoldi"}, {"solver": "nystroem"}):
        with pytest.raises(
            ConfigError, match=r"rank: \d+ takes .* GiB, more than memory_gb=1e-06 allows: expected a smaller"
        ):
            Influence(memory_gb=1e-6, **options).attribute(evidence)


def test_what_a_recipe_does_not_allow_is_refused_before_training(toy, evidence_of):
    task = toy("regression", recipe=Recipe(weight_decay=0.1, no_decay=("bias",), precision="float64"))
    evidence = evidence_of(toy("regression"), "prediction", models=1)
    with pytest.raises(ConfigError, match="use weight_decay: false"):
        Influence().check(replace(evidence, task=task, references=()))
    still = toy("regression", recipe=Recipe(warmup_steps=1, batch_size=24, epochs=1, precision="float64"))
    with pytest.raises(ConfigError, match="expected a damping of your own"):
        Influence().check(replace(evidence, task=still, references=()))
    Influence(damping=0.1).check(replace(evidence, task=still, references=()))


def test_a_diverging_series_is_refused(evidence):
    with pytest.raises(ConfigError, match=r"lissa diverges at scale 0\.01"):
        Influence(solver="lissa", scale=0.01).attribute(evidence)


class Scaled(Classification):
    """Logistic regression on inputs whose scales differ by orders of magnitude."""

    def __init__(self):
        rng = torch.Generator().manual_seed(1)
        self.recipe = Recipe(lr=1e-3, batch_size=100, epochs=3, precision="float64")
        inputs = torch.randn(305, 40, generator=rng, dtype=torch.float64) * torch.logspace(
            1, -2, 40, dtype=torch.float64
        )
        targets = torch.randint(0, 3, (305,), generator=rng)
        self.train_inputs, self.query_inputs = inputs[:300], inputs[300:]
        self.train_targets, self.query_targets = targets[:300], targets[300:]

    def module(self):
        return nn.Linear(40, 3)


def test_ekfac_saves_products_where_what_enters_a_layer_is_badly_scaled(evidence_of):
    evidence = evidence_of(Scaled(), "margin", models=1)
    options = {"solver": "cg", "damping": 1e-5, "tolerance": 1e-3}
    plain, preconditioned = (
        Influence(**options, preconditioner=name).attribute(evidence) for name in ("none", "ekfac")
    )
    assert preconditioned.details["unconverged"] == 0
    assert preconditioned.details["iterations"] < plain.details["iterations"] / 2
