import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.curvature.newton_steps import newton_steps
from estimators.evidence import Evidence, Reference
from estimators.gradient_based.trak import Trak
from estimators.gradients.factored_projection import FactoredProjection, ranks_within
from estimators.gradients.forward import values_of
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from tests.estimators.exact import exact_values
from workers import Recipe
from workers.errors import ConfigError
from workers.runs import Checkpoint


def outputs(task, checkpoint, measure):
    module = task.module().double()
    module.load_state_dict(checkpoint.state)
    with torch.no_grad():
        return task.measurement(measure)(module(task.train_inputs), task.train_targets).numpy()


def oracle(evidence, autograd, damping, output, reweight=False, checkpoints=None):
    """The formula, literally, with the (p, p) inverse."""
    task, effects, residuals = evidence.task, [], []
    for checkpoint in checkpoints or [reference.checkpoints[-1] for reference in evidence.references]:
        phi = autograd(task, checkpoint, task.measurement(output), task.train_inputs, task.train_targets)
        f = outputs(task, checkpoint, output)
        p = 1 / (1 + np.exp(-f))
        weight = p * (1 - p) if reweight and output == "margin" else np.ones_like(f)
        gram = phi.T @ (phi * weight[:, None])
        lam = np.trace(gram) / min(phi.shape) if damping == "auto" else damping
        q = autograd(task, checkpoint, task.measurement(evidence.measure), task.query_inputs, task.query_targets)
        effects.append(phi @ np.linalg.solve(gram + lam * np.eye(len(gram)), q.T))
        residuals.append(1 - p if output == "margin" else task.train_targets.numpy() - f)
    return np.mean(effects, 0) * np.mean(residuals, 0)[:, None]


@pytest.fixture(scope="module")
def evidence(toy, evidence_of):
    return evidence_of(toy("classification", hidden=5), "margin", models=3)  # p = 38 > n = 24


@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("damping", ["auto", 0.7])
@pytest.mark.parametrize("hidden", [0, 2, 5])
def test_it_equals_the_formula_for_more_and_fewer_parameters_than_examples(
    hidden, damping, models, toy, evidence_of, autograd
):
    evidence = evidence_of(toy("classification", hidden=hidden), "margin", models=models)
    expected = oracle(evidence, autograd, damping, "margin")
    got = Trak(damping=damping).attribute(evidence)
    np.testing.assert_allclose(got.values, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    assert got.models == models


@pytest.mark.parametrize(
    ("kind", "measure", "output"),
    [
        ("classification", "loss", "margin"),
        ("regression", "prediction", "prediction"),
        ("regression", "loss", "prediction"),
    ],
)
def test_other_measures_enter_by_their_own_gradient(kind, measure, output, toy, evidence_of, autograd):
    evidence = evidence_of(toy(kind, hidden=4), measure)
    expected = oracle(evidence, autograd, 0.5, output)
    got = Trak(damping=0.5).attribute(evidence).values
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_options_reweight_and_all_checkpoints(evidence, autograd):
    got = Trak(damping=0.3, reweight=True).attribute(evidence).values
    expected = oracle(evidence, autograd, 0.3, "margin", reweight=True)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    trained = [c for reference in evidence.references for c in reference.checkpoints if c.epoch > 0]
    expected = oracle(evidence, autograd, 0.3, "margin", checkpoints=trained)
    every = Trak(damping=0.3, checkpoints="all").attribute(evidence)
    np.testing.assert_allclose(every.values, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    assert (every.models, every.details["checkpoints"]) == (3, 6)


def test_weights_count_an_example_twice_like_a_copy_does(toy, evidence_of):
    doubled = toy("classification", hidden=2, weights=torch.ones(24, dtype=torch.float64))
    doubled.train_weights[4] = 2
    evidence = evidence_of(doubled, "margin", models=1)
    copied = toy("classification", hidden=2)
    copied.train_inputs = torch.cat([copied.train_inputs, copied.train_inputs[4:5]])
    copied.train_targets = torch.cat([copied.train_targets, copied.train_targets[4:5]])
    same = Evidence(25, 5, "margin", references=evidence.references, task=copied)
    once = Trak(damping=0.1).attribute(same).values
    twice = Trak(damping=0.1).attribute(evidence).values
    np.testing.assert_allclose(once[4], once[24], rtol=1e-5)
    once[4] += once[24]
    np.testing.assert_allclose(twice, once[:24], rtol=1e-4, atol=1e-7)


def test_for_logistic_regression_it_is_the_leave_one_out_effect(toy):
    """Two classes: with R, tau / (1 - leverage) is the one-step Newton effect, close to actual retraining."""
    decay, n = 0.05, 24
    task = toy("classification", recipe=Recipe(weight_decay=decay, precision="float64"))
    task.train_targets, task.query_targets = task.train_targets.clamp(max=1), task.query_targets.clamp(max=1)
    task.outputs = 2
    x = np.c_[task.train_inputs.numpy(), np.ones(n)]
    phi = np.where(task.train_targets.numpy() == 1, 1, -1)[:, None] * np.c_[-x, x]  # gradient of the margin
    xq = np.c_[task.query_inputs.numpy(), np.ones(5)]
    phi_q = np.where(task.query_targets.numpy() == 1, 1, -1)[:, None] * np.c_[-xq, xq]

    def fit(weights):
        theta = np.zeros(8)
        for _ in range(30):  # Newton's method on the sum of losses + n decay / 2 |theta|^2
            p = 1 / (1 + np.exp(-phi @ theta))
            hessian = (phi.T * (weights * p * (1 - p))) @ phi + n * decay * np.eye(8)
            theta = theta + np.linalg.solve(hessian, phi.T @ (weights * (1 - p)) - n * decay * theta)
        return theta, hessian, p

    theta, hessian, p = fit(np.ones(n))
    rows = torch.from_numpy(theta.reshape(2, 4))
    reference = Reference(0, (Checkpoint(1, 3, 0.1, {"weight": rows[:, :3], "bias": rows[:, 3]}),))
    evidence = Evidence(n, 5, "margin", references=(reference,), task=task)
    got = Trak(damping=n * decay, reweight=True).attribute(evidence).values
    effects = np.empty((n, 5))
    for i in range(n):
        weights = np.ones(n)
        weights[i] = 0
        effects[i] = phi_q @ (theta - fit(weights)[0])
    leverage = p * (1 - p) * np.einsum("ij,ij->i", phi, np.linalg.solve(hessian, phi.T).T)
    newton = got / (1 - leverage)[:, None]
    assert np.corrcoef(newton.ravel(), effects.ravel())[0, 1] > 0.99
    slope = (newton * effects).sum() / (effects**2).sum()
    assert slope == pytest.approx(1, abs=0.1)


def test_a_twin_of_the_query_helps(toy, evidence_of):
    task = toy("classification", hidden=4)
    task.train_inputs[0], task.train_targets[0] = task.query_inputs[2], task.query_targets[2]
    assert Trak().attribute(evidence_of(task, "margin")).values[0, 2] > 0
    assert Trak().attribute(evidence_of(task, "loss")).values[0, 2] < 0


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), damping=st.floats(0.01, 10))
def test_both_forms_of_the_steps_agree(seed, damping):
    rng = np.random.default_rng(seed)
    for n, k in ((9, 6), (6, 9)):
        features, targets = torch.from_numpy(rng.normal(size=(n, k))), torch.from_numpy(rng.normal(size=(4, k)))
        curvature = torch.from_numpy(rng.random(n))
        curvature[0] = 0
        inverse = np.linalg.inv(features.numpy().T @ (features * curvature[:, None]).numpy() + damping * np.eye(k))
        steps = newton_steps(features, curvature, damping)
        for found in (steps.effects(targets), steps.rows(torch.float64) @ targets.T):
            np.testing.assert_allclose(found, features.numpy() @ inverse @ targets.numpy().T, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(
            steps.leverages(), np.einsum("ij,jk,ik->i", features, inverse, features), rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("rank", [3, 6])
@pytest.mark.parametrize(("n", "k"), [(9, 6), (6, 9)])
def test_without_a_damping_it_is_the_pseudo_inverse(n, k, rank):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, k))
    targets, curvature = rng.normal(size=(4, k)), rng.random(n) + 0.1
    inverse = np.linalg.pinv(features.T @ (features * curvature[:, None]), rcond=1e-10, hermitian=True)
    steps = newton_steps(*(torch.from_numpy(one) for one in (features, curvature)), 0.0)
    asked = torch.from_numpy(targets)
    for found in (steps.effects(asked), steps.rows(torch.float64) @ asked.T):
        np.testing.assert_allclose(found, features @ inverse @ targets.T, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(
        steps.leverages(), np.einsum("ij,jk,ik->i", features, inverse, features), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize(("n", "k"), [(40, 25), (25, 40)])
def test_the_rounding_of_float32_is_no_direction(n, k):
    """Gradients of rank 3 that were computed in float32 have other directions, too, of rounding: their inverse is left out."""
    rng = np.random.default_rng(3)
    features, targets = rng.normal(size=(n, 3)) @ (basis := rng.normal(size=(3, k))), rng.normal(size=(4, 3)) @ basis
    wanted = features @ np.linalg.pinv(features.T @ features, rcond=1e-10, hermitian=True) @ targets.T
    rounded = (torch.from_numpy(one * (1 + 3e-7 * rng.normal(size=one.shape))) for one in (features, targets))
    phi, asked = rounded
    found = newton_steps(phi, torch.ones(n, dtype=torch.float64), 0.0, torch.float32)
    np.testing.assert_allclose(found.effects(asked), wanted, rtol=1e-4, atol=1e-5)
    exact = newton_steps(phi, torch.ones(n, dtype=torch.float64), 0.0)
    assert np.abs(exact.effects(asked).numpy() - wanted).max() > 0.01, "what is left out would be seen"


@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("damping", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_relative_effects_are_divided_by_each_examples_own(kind, damping, models, toy, evidence_of, autograd):
    evidence = evidence_of(toy(kind, hidden=2), "loss", models=models)
    task, output = evidence.task, "margin" if kind == "classification" else "prediction"
    effects, sizes, residuals = [], [], []
    for reference in evidence.references:
        checkpoint = reference.checkpoints[-1]
        phi = autograd(task, checkpoint, task.measurement(output), task.train_inputs, task.train_targets)
        q = autograd(task, checkpoint, task.loss, task.query_inputs, task.query_targets)
        inverse = np.linalg.pinv(phi.T @ phi + damping * np.eye(phi.shape[1]), rcond=1e-12, hermitian=True)
        f = outputs(task, checkpoint, output)
        effects.append(phi @ inverse @ q.T)
        sizes.append(np.sqrt(np.diag(phi @ inverse @ phi.T)))
        residuals.append(1 - 1 / (1 + np.exp(-f)) if kind == "classification" else task.train_targets.numpy() - f)
    wanted = np.mean(effects, 0) / np.mean(sizes, 0)[:, None] * np.sign(np.mean(residuals, 0))[:, None]
    estimator = Trak(damping=damping, relative=True)
    np.testing.assert_allclose(exact_values(estimator, evidence), wanted, rtol=1e-8, atol=1e-9)
    assert not estimator.claims_units


def test_projections_are_seeded_and_approach_the_exact_answer(evidence):
    exact = Trak(damping=1.0).attribute(evidence).values
    wide = Trak(damping=1.0, project_dim=20_000).attribute(evidence)
    assert wide.details["dimension"] == 20_000
    assert np.corrcoef(wide.values.ravel(), exact.ravel())[0, 1] > 0.99
    narrow = Trak(damping=1.0, project_dim=8, projection="normal")
    np.testing.assert_array_equal(narrow.attribute(evidence).values, narrow.attribute(evidence).values)
    assert not np.allclose(narrow.attribute(evidence).values, exact, rtol=0.05)


def test_what_it_cannot_do_is_refused(evidence, toy, evidence_of, monkeypatch):
    with pytest.raises(ConfigError, match="more than half of memory_gb=1e-06: expected a smaller project_dim"):
        Trak(memory_gb=1e-6).attribute(evidence)
    with pytest.raises(ConfigError, match="'trak' needs 4 reference model"):
        Trak(models=4).attribute(evidence)
    with pytest.raises(ConfigError, match="'correct' has no gradient"):
        Trak().attribute(evidence_of(toy("classification"), "correct", models=1))
    odd = evidence_of(toy("regression"), "loss", models=1)
    monkeypatch.setattr(odd.task, "measurements", lambda: {"loss": odd.task.loss})
    with pytest.raises(ConfigError, match="'margin' or 'prediction'; ToyRegression has only: loss"):
        Trak().attribute(odd)


def test_a_factored_projection_is_that_of_each_layers_sides(toy, evidence_of):
    task = toy("classification", hidden=4)
    evidence = evidence_of(task, "margin", models=1)
    model = Model(task, evidence.references[0].checkpoints[-1], torch.float64)
    examples = [Examples.training(task, torch.float64), Examples.queried(task, evidence.queries, torch.float64)]
    margin = task.objective("margin")
    layers = Layers.of(model, [(margin, one) for one in examples])
    project = FactoredProjection.random(
        layers[0].blocks, ranks_within(layers[0].blocks, 12), evidence.seed, 0, torch.float64
    )
    phi, asked = (project(one.factors(two)) for one, two in zip(layers, examples, strict=True))
    made = Trak(project_dim=12, projection="factored", damping=0.5).attribute(evidence)
    residuals = values_of(model, lambda module, batch: (-margin(module, batch)).sigmoid(), examples[0])
    damped = phi.T @ phi + 0.5 * torch.eye(project.k, dtype=torch.float64)
    wanted = residuals[:, None] * (phi @ torch.linalg.solve(damped, asked.T))
    np.testing.assert_allclose(made.values, wanted.numpy(), rtol=1e-5, atol=1e-8)
    assert made.details["dimension"] == project.k <= 12
