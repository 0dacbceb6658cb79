"""Sensitivities of whole models against Jacobians by autograd and matrices in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from estimators.curvature.gauss_newton import GaussNewton
from estimators.curvature.kronecker_fit import Fit
from estimators.curvature.pseudo_gradients import ExactGradients
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from estimators.sensitivity import of_model
from estimators.sensitivity.covariances import inverse
from estimators.sensitivity.equation import without_itself
from estimators.sensitivity.kronecker import by_layers
from estimators.sensitivity.layer_jacobians import LayerJacobians
from tests.estimators.modules import N, Net, normal
from workers.errors import ConfigError
from workers.runs import Checkpoint
from workers.tasks.networks import cnn, mlp


def dense(task, model):
    """Outputs, Jacobians (n, c, p), errors p - y and Hessians of the softmax, one example at a time."""
    module = task.module().double()
    module.load_state_dict(dict(model.module.state_dict()))
    module.eval()
    outputs, jacobians = [], []
    for x in task.train_inputs:
        z = module(x[None])[0]
        rows = [torch.autograd.grad(value, list(module.parameters()), retain_graph=True) for value in z]
        jacobians.append(torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]))
        outputs.append(z.detach())
    z, j = torch.stack(outputs), torch.stack(jacobians)
    s = z.softmax(1)
    hessian = torch.diag_embed(s) - s[:, :, None] * s[:, None, :]
    weights = torch.ones(task.n, dtype=torch.float64) if task.train_weights is None else task.train_weights
    error = s - F.one_hot(task.train_targets, s.shape[1])
    return z, j, error * weights[:, None], hessian * weights[:, None, None]


def of(build, *shape, weights=None):
    torch.manual_seed(5)
    task = Net(build, normal(*shape))
    task.train_weights = weights
    model = Model(task, Checkpoint(0, 0, 0.1, dict(task.module().double().state_dict())), torch.float64)
    return task, model, Examples.training(task, torch.float64)


CASES = {
    "mlp": lambda: of(lambda: mlp(6, [5], 3), 6, weights=torch.linspace(0.5, 2, N, dtype=torch.float64)),
    "cnn": lambda: of(lambda: cnn(1, 8, 2, 3), 1, 8, 8),
    "embedded": lambda: of(lambda: torch.nn.Sequential(torch.nn.LayerNorm(6), torch.nn.Linear(6, 3)), 6),
}


@pytest.fixture(params=list(CASES))
def setting(request):
    return CASES[request.param]()


@pytest.mark.parametrize("budget", [2**28, 2**12])
def test_diagonal_newton(setting, budget):
    task, model, train = setting
    z, j, error, hessian = dense(task, model)
    diagonal = torch.einsum("ncp,ncd,ndp->p", j, hessian, j) / N
    jacobians = LayerJacobians(model, task, train, budget)
    torch.testing.assert_close(jacobians.flat(jacobians.gauss_newton_diagonal()), diagonal)
    made = of_model.by_diagonal(model, task, train, of_model.diagonal_newton(0.3), budget)
    variance = torch.einsum("ncp,p,ndp->ncd", j, 1 / (N * (diagonal + 0.3)), j)
    torch.testing.assert_close(made.variance, variance)
    torch.testing.assert_close(made.outputs, z)
    torch.testing.assert_close(made.error, error)
    torch.testing.assert_close(made.deviations, torch.einsum("ncd,nd->nc", variance, error))


def test_adams_diagonal(setting):
    task, model, train = setting
    _, j, *_ = dense(task, model)
    second = torch.linspace(0.1, 2, model.p, dtype=torch.float64)
    made = of_model.by_diagonal(model, task, train, of_model.diagonal_adam(second, 0.05), 2**28)
    torch.testing.assert_close(made.variance, torch.einsum("ncp,p,ndp->ncd", j, 1 / (N * (second.sqrt() + 0.05)), j))


def test_full_and_kronecker_covariances():
    task, model, train = CASES["mlp"]()
    _, j, _, hessian = dense(task, model)
    matrix = torch.einsum("ncp,ncd,ndq->pq", j, hessian, j) / N
    made = of_model.by_solves(model, task, train, inverse(matrix, 0.2), 2**28)
    whole = torch.linalg.inv(matrix + 0.2 * torch.eye(model.p, dtype=torch.float64)) / N
    torch.testing.assert_close(made.variance, j @ whole @ j.mT)
    source = ExactGradients(model, task, train)
    (layers,) = Layers.of(model, [(source.objective, source.few())])
    curvature = Fit(layers, source, 2**24).kfac()
    made = of_model.by_solves(model, task, train, curvature.inverse(0.2), 2**28)
    layered = torch.linalg.inv(curvature.dense() + 0.2 * torch.eye(model.p, dtype=torch.float64)) / N
    torch.testing.assert_close(made.variance, j @ layered @ j.mT)


def test_a_covariance_by_layers_is_the_kronecker_product_inverted():
    task, model, train = CASES["mlp"]()
    made = by_layers(model, task, train, 0.2, 2**28)
    _, j, _, _ = dense(task, model)
    source = ExactGradients(model, task, train)
    (layers,) = Layers.of(model, [(source.objective, source.few())])
    layered = torch.linalg.inv(Fit(layers, source, 2**24).kfac().dense() + 0.2 * torch.eye(model.p).double()) / N
    torch.testing.assert_close(made.variance, j @ layered @ j.mT)
    with pytest.raises(ConfigError, match="damping above 0"):
        by_layers(model, task, train, 0.0, 2**28)


def test_layers_that_are_passed_several_times_have_their_diagonal():
    task, model, train = CASES["embedded"]()
    made = by_layers(model, task, train, 0.2, 2**28)
    _, j, _, hessian = dense(task, model)
    whole = torch.einsum("ncp,ncd,ndq->pq", j, hessian, j) / N
    covariance = torch.diag(1 / (whole.diagonal() + 0.2))
    x = torch.cat([model.module[0](task.train_inputs), torch.ones(N, 1, dtype=torch.float64)], 1)
    linear = torch.linalg.inv(torch.kron(hessian.mean(0), x.T @ x / N) + 0.2 * torch.eye(21).double())
    order = torch.cat([torch.arange(21).reshape(3, 7)[:, :6].flatten(), torch.tensor([6, 13, 20])])
    covariance[12:, 12:] = linear[order][:, order]
    torch.testing.assert_close(made.variance, j @ covariance @ j.mT / N)


def test_left_out_losses():
    task, model, train = CASES["mlp"]()
    made = of_model.by_diagonal(model, task, train, of_model.diagonal_newton(0.3), 2**28)
    found = of_model.left_out_losses(task, model, train, made.left_out_outputs)
    wanted = F.cross_entropy(made.outputs + made.deviations, task.train_targets, reduction="none")
    torch.testing.assert_close(found, wanted)
    assert float(found.mean()) > float(F.cross_entropy(made.outputs, task.train_targets))


def test_a_precision_of_zero_is_refused():
    task, model, train = CASES["mlp"]()
    with pytest.raises(ConfigError, match="positive precision"):
        of_model.by_diagonal(model, task, train, of_model.diagonal_adam(torch.zeros(model.p).double(), 0.0), 2**28)


def fitted(task, keep):
    """Logistic regression with a penalty of .05 on all parameters, to its optimum by LBFGS."""
    module = task.module().double()
    descent = torch.optim.LBFGS(module.parameters(), max_iter=60, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure():
        descent.zero_grad()
        losses = F.cross_entropy(module(task.train_inputs[keep]), task.train_targets[keep], reduction="sum")
        value = losses / task.n + 0.025 * sum(one.square().sum() for one in module.parameters())
        value.backward()
        return value

    descent.step(closure)
    return module


def test_sensitivity_is_near_what_retraining_says(toy):
    """Outputs left out, against those of the optimum without each example."""
    task, everything = toy("classification"), np.arange(24)
    module = fitted(task, everything)
    model = Model(task, Checkpoint(1, 1, 0.1, dict(module.state_dict())), torch.float64)
    examples = Examples.training(task, torch.float64)
    matrix = GaussNewton(model, task, examples, 2**24).dense()
    made = of_model.by_solves(model, task, examples, inverse(matrix, 0.05), 2**24)
    true = []
    for i in range(24):
        other, own = fitted(task, np.delete(everything, i)), task.train_inputs[i]
        true.append((other(own) - module(own)).detach())
    corrected = replace(made, variance=without_itself(made.variance, dense(task, model)[3]))
    for one, bound in ((made, 0.4), (corrected, 0.15)):
        assert float((one.deviations - torch.stack(true)).norm() / torch.stack(true).norm()) < bound
