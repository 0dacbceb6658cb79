"""Representer values against a last layer that is fitted by other means: in closed form, and by the dense Hessian."""

import numpy as np
import pytest
import torch
from torch import nn

from estimators.curvature.last_layer_fit import LastLayerProblem, fit_last_layer
from estimators.gradient_based.representer import Representer, RepresenterEffects
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.last_layer import LastLayer
from estimators.gradients.output_losses import OutputLosses
from workers.errors import ConfigError

PENALTY = 0.003
WEIGHTS = torch.linspace(0.5, 2, 24, dtype=torch.float64)


def entering(reference, inputs):
    """What enters the last layer of the toy network, with a 1 behind it."""
    state = reference.checkpoints[-1].state
    hidden = np.tanh(inputs.numpy() @ state["0.weight"].numpy().T + state["0.bias"].numpy())
    return np.hstack([hidden, np.ones((len(hidden), 1))])


def softmax_fit(h, targets, weights, penalty):
    """Return the minimum V of the mean weighted cross-entropy + penalty |V|^2, by the dense Hessian, and w (p - y) there."""
    n, d = h.shape
    wanted = np.eye(3)[targets]
    v = np.zeros((d, 3))
    for _ in range(50):
        odds = np.exp(h @ v - (h @ v).max(1, keepdims=True))
        p = odds / odds.sum(1, keepdims=True)
        slope = (h.T @ (weights[:, None] * (p - wanted)) / n + 2 * penalty * v).ravel()
        curvature = 2 * penalty * np.eye(3 * d)
        for i in range(n):
            curvature += weights[i] / n * np.kron(np.outer(h[i], h[i]), np.diag(p[i]) - np.outer(p[i], p[i]))
        v = v - np.linalg.solve(curvature, slope).reshape(d, 3)
    return v, weights[:, None] * (p - wanted)


def test_squared_errors_have_a_closed_form(toy, evidence_of):
    task = toy("regression", hidden=4, weights=WEIGHTS)
    evidence = evidence_of(task, "prediction")
    expected = 0.0
    for reference in evidence.references:
        h, asked = entering(reference, task.train_inputs), entering(reference, task.query_inputs)
        w, y = WEIGHTS.numpy(), task.train_targets.numpy()
        fitted = np.linalg.solve(h.T @ (w[:, None] * h) + 24 * PENALTY * np.eye(5), h.T @ (w * y))
        alphas = w * (y - h @ fitted) / (PENALTY * 24)
        np.testing.assert_allclose(alphas @ h @ asked.T, asked @ fitted, atol=1e-10)  # the theorem itself
        expected = expected + alphas[:, None] * (h @ asked.T)
    made = Representer().attribute(evidence)
    np.testing.assert_allclose(made.values, expected / 2, rtol=1e-5, atol=1e-6)
    assert made.models == 2


@pytest.mark.parametrize("measure", ["margin", "loss", "probability"])
def test_softmax_equals_a_fit_by_the_dense_hessian(toy, evidence_of, measure):
    task = toy("classification", hidden=4, weights=WEIGHTS)
    evidence, expected = evidence_of(task, measure), 0.0
    for reference in evidence.references:
        h, asked = entering(reference, task.train_inputs), entering(reference, task.query_inputs)
        fitted, residuals = softmax_fit(h, task.train_targets.numpy(), WEIGHTS.numpy(), PENALTY)
        outputs = torch.from_numpy(asked @ fitted).requires_grad_()
        task.measurement(measure)(outputs, task.query_targets).sum().backward()
        alphas = -residuals / (2 * PENALTY * 24)
        expected = expected + (alphas @ outputs.grad.numpy().T) * (h @ asked.T)
    made = Representer().attribute(evidence)
    np.testing.assert_allclose(made.values, expected / 2, rtol=2e-5, atol=1e-6 * np.abs(expected).max())


def decomposition(task, evidence, penalty, place=0):
    effects = Representer(penalty=penalty).effects(Representer().material(evidence, evidence.references))
    assert isinstance(effects, RepresenterEffects)
    model = effects.model(evidence.references[place].checkpoints[-1])
    return effects.decomposition(model, OutputLosses(task, model, effects.material.train))


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("penalty", [1e-5, 0.003, 1.0])
def test_the_terms_add_up_to_the_outputs(toy, evidence_of, kind, penalty):
    task = toy(kind, hidden=4)
    found = decomposition(task, evidence_of(task, "loss", models=1), penalty)
    sums = torch.einsum("nc,nd,td->tc", found.alphas, found.inputs, found.asked)
    torch.testing.assert_close(sums, found.outputs, rtol=1e-8, atol=1e-8)
    assert found.error() < 1e-8


def test_with_a_linear_measure_the_values_add_up_to_it(toy, evidence_of):
    task = toy("regression", hidden=4)
    evidence = evidence_of(task, "prediction", models=1)
    outputs = decomposition(task, evidence, PENALTY).outputs.flatten().numpy()
    np.testing.assert_allclose(Representer().attribute(evidence).values.sum(0), outputs, rtol=1e-5, atol=1e-6)


def test_how_far_the_layer_moved_is_told(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin")
    near, far = (Representer(penalty=penalty).attribute(evidence).details for penalty in (0.003, 100.0))
    assert len(near["moved"]) == 2
    assert min(far["moved"]) > 0.95  # all but nothing of the layer is left
    task, reference = evidence.task, evidence.references[1]
    outputs = decomposition(task, evidence, PENALTY, 1).outputs.numpy().ravel()
    state = reference.checkpoints[-1].state
    head = np.vstack([state["2.weight"].numpy().T, state["2.bias"].numpy()])
    trained = (entering(reference, task.query_inputs) @ head).ravel()
    np.testing.assert_allclose(near["output_correlation"][1], np.corrcoef(outputs, trained)[0, 1], rtol=1e-8)
    assert max(near["decomposition_error"]) < 1e-10


def problem(toy, evidence_of, kind="classification", **options):
    task = toy(kind, hidden=4)
    checkpoint = evidence_of(task, "loss", models=1).references[0].checkpoints[-1]
    model, train = Model(task, checkpoint, torch.float64), Examples.training(task, torch.float64)
    layer = LastLayer(task, model, train)
    given = {"l2": 0.01, "damping": 0.02, **options}
    return LastLayerProblem(OutputLosses(task, model, train), train, layer.inputs(train, 2**20), layer.weights, **given)


def test_a_fit_is_the_optimum_and_stays_near_where_it_is_pulled(toy, evidence_of):
    given = problem(toy, evidence_of)
    found = fit_last_layer(given)
    v = found.weights.clone().requires_grad_()
    objective = torch.nn.functional.cross_entropy(given.inputs @ v, given.losses.task.train_targets)
    objective = objective + 0.005 * v.square().sum() + 0.01 * (v - given.start).square().sum()
    (slope,) = torch.autograd.grad(objective, v)
    assert float(slope.norm()) < 1e-12
    pulled = fit_last_layer(problem(toy, evidence_of, damping=1e4))
    torch.testing.assert_close(pulled.weights, given.start, rtol=0, atol=1e-3)


class Twisted:
    """A loss that is concave in the outputs."""

    size = 1

    def __init__(self, like):
        self.like = like

    def derivatives(self, outputs, batch, weights):
        return -2 * outputs + 1, lambda rows: -2 * rows


def test_a_problem_without_an_optimum_is_refused(toy, evidence_of):
    given = problem(toy, evidence_of, "regression", l2=1e-3, damping=0.0)
    twisted = LastLayerProblem(Twisted(given.losses), given.examples, given.inputs, given.start, 1e-3, 0.0)
    with pytest.raises(ConfigError, match="the last layer has no optimum that is reached in 100 Newton steps"):
        fit_last_layer(twisted)


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(1, 3, 3)

    def forward(self, inputs):
        return self.layer(inputs[:, None]).flatten(1)


class Scaled(nn.Module):
    """Its last linear layer does not end it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs):
        return 2 * self.layer(inputs)


class Twice(Scaled):
    def forward(self, inputs):
        return self.layer(self.layer(inputs))


class TwoOutputs(Scaled):
    def forward(self, inputs):
        return self.layer(inputs), inputs


class EveryPlace(Scaled):
    def forward(self, inputs):
        return self.layer(inputs[:, None].expand(-1, 2, -1)).flatten(1)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Convolution, "the module has no Linear layer: expected one that ends it"),
        (Scaled, "'layer', does not end the module: it gives 3 numbers an example, and the module returns 3"),
        (Twice, "'layer', is called 2 times in a forward pass"),
        (TwoOutputs, "it gives 3 numbers an example, and the module returns 6"),
        (EveryPlace, r"'layer', takes \(2, 3\) numbers an example: expected a vector"),
    ],
)
def test_a_module_without_such_a_layer_is_told_in_one_line(toy, module, said):
    task = toy("classification")
    made = module().double()
    task.module = module
    model = Model(task, checkpoint(made), torch.float64)
    with pytest.raises(ConfigError, match=said) as caught:
        LastLayer(task, model, Examples.training(task, torch.float64))
    assert "\n" not in str(caught.value)


def checkpoint(module):
    from workers.runs import Checkpoint

    return Checkpoint(1, 1, 0.1, module.state_dict())


def test_a_layer_without_a_bias_is_fitted_without(toy):
    task = toy("classification")
    task.module = lambda: nn.Linear(3, 3, bias=False)
    model = Model(task, checkpoint(task.module().double()), torch.float64)
    train = Examples.training(task, torch.float64)
    layer = LastLayer(task, model, train)
    torch.testing.assert_close(layer.inputs(train, 2**20), task.train_inputs)
    assert layer.weights.shape == (3, 3)


def test_inputs_beyond_the_budget_are_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin")
    with pytest.raises(ConfigError, match=r"what enters the last layer takes .* GiB for 24 examples, more than"):
        Representer(memory_gb=1e-7).attribute(evidence)
    with pytest.raises(ValueError, match="greater than 0"):
        Representer(penalty=0.0)


class Normalized(nn.Module):
    """Batch normalization, a weight that is used twice, and a dictionary of outputs of which one is no floating number."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight = self.mix.weight

    def forward(self, inputs):
        logits = self.head(self.norm(self.mix(inputs)))
        return {"logits": logits, "class": logits.argmax(1)}


def test_normalizations_tied_weights_and_outputs_by_name_are_seen_as_they_are(toy):
    task = toy("classification")
    task.module = Normalized
    task.loss = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs["logits"], targets, reduction="none")
    torch.manual_seed(0)
    made = Normalized().double()
    made.norm.running_mean += 0.3
    made.norm.running_var *= 1.7
    made.eval()
    model, train = Model(task, checkpoint(made), torch.float64), Examples.training(task, torch.float64)
    layer, losses = LastLayer(task, model, train), OutputLosses(task, model, train)
    inputs = layer.inputs(train, 2**20)
    with torch.no_grad():
        torch.testing.assert_close(inputs, made.norm(made.mix(task.train_inputs)))
        torch.testing.assert_close(inputs @ layer.weights, made(task.train_inputs)["logits"])
    found = fit_last_layer(LastLayerProblem(losses, train, inputs, layer.weights, 0.01, 0.0))
    torch.testing.assert_close(found.weights, -inputs.T @ found.gradients / 24 / 0.01, rtol=1e-8, atol=1e-10)
