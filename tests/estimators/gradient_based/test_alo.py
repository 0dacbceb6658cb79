"""Leaving out in closed form against fitting without each example, and against its formula with dense matrices."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from estimators.curvature.damping import unrolled_damping
from estimators.gradient_based.alo import Alo
from workers import Queries, Recipe
from workers.errors import ConfigError

WEIGHTS = torch.linspace(0.5, 2, 24, dtype=torch.float64)


def exact(options, evidence):
    """The values of the first reference model in float64, before they are rounded."""
    effects = options.effects(options.material(evidence, evidence.references[:1]))
    checkpoint = evidence.references[0].checkpoints[-1]
    blocks = list(effects.of_model(effects.model(checkpoint), checkpoint))
    return torch.cat([block for _, block in blocks], dim=1).numpy(), effects


def entering(reference, inputs):
    """What enters the last layer of the toy task, with a 1 behind it; and the trained layer."""
    state = {name: value.numpy() for name, value in reference.checkpoints[-1].state.items()}
    h, last = inputs.numpy(), ""
    if "0.weight" in state:
        h, last = np.tanh(h @ state["0.weight"].T + state["0.bias"]), "2."
    return np.hstack([h, np.ones((len(h), 1))]), np.vstack([state[f"{last}weight"].T, state[f"{last}bias"]])


@pytest.mark.parametrize(("penalty", "damping"), [(0.0, 0.0), (0.05, 0.0), (0.02, 0.1)])
@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("measure", ["prediction", "squared_error"])
def test_for_squared_errors_it_equals_fitting_without_each_example(toy, evidence_of, penalty, damping, hidden, measure):
    task = toy("regression", hidden=hidden, weights=WEIGHTS)
    evidence = evidence_of(task, measure, models=1)
    found, _ = exact(Alo(penalty=penalty, damping=damping), evidence)
    h, start = entering(evidence.references[0], task.train_inputs)
    asked, _ = entering(evidence.references[0], task.query_inputs)
    w, y = WEIGHTS.numpy(), task.train_targets.numpy()

    def outputs(kept):
        """Minimize the kept examples' mean of w (h v - y)^2, + penalty / 2 |v|^2 + damping / 2 |v - start|^2."""
        m = kept.sum()
        matrix = 2 * h[kept].T @ (w[kept, None] * h[kept]) / m + (penalty + damping) * np.eye(h.shape[1])
        v = np.linalg.solve(matrix, 2 * h[kept].T @ (w[kept] * y[kept]) / m + damping * start[:, 0])
        return asked @ v if measure == "prediction" else (asked @ v - task.query_targets.numpy()) ** 2

    expected = np.array([outputs(np.ones(24, bool)) - outputs(np.arange(24) != i) for i in range(24)])
    np.testing.assert_allclose(found, expected, atol=1e-8)


def newton_without(jacobians, slopes, curvatures, pull, l2):
    """delta_i of every example by a dense matrix of its own."""
    n, _, p = jacobians.shape
    parts = np.einsum("nap,nab,nbq->npq", jacobians, curvatures, jacobians)
    found = []
    for i in range(n):
        matrix = parts.sum(0) - parts[i] + (n - 1) * l2 * np.eye(p)
        found.append(np.linalg.solve(matrix, jacobians[i].T @ slopes[i] + pull))
    return np.array(found)


def softmax_derivatives(outputs, targets):
    p = np.exp(outputs - outputs.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return p - np.eye(p.shape[1])[targets], np.einsum("na,ab->nab", p, np.eye(p.shape[1])) - p[:, :, None] * p[:, None]


def fitted(h, targets, start, penalty, damping):
    """The minimum by Newton's method on a dense Hessian."""
    v, n = start.copy(), len(h)
    jacobians = np.einsum("nd,ab->nadb", h, np.eye(3)).reshape(n, 3, -1)
    for _ in range(30):
        slopes, curvatures = softmax_derivatives(h @ v, targets)
        slope = (h.T @ slopes / n + penalty * v + damping * (v - start)).ravel()
        matrix = np.einsum("nap,nab,nbq->pq", jacobians, curvatures, jacobians) / n
        v = v - np.linalg.solve(matrix + (penalty + damping) * np.eye(v.size), slope).reshape(v.shape)
    return v


@pytest.mark.parametrize("measure", ["margin", "loss", "correct"])
def test_several_classes_take_blocks(toy, evidence_of, measure):
    task = toy("classification", hidden=4)
    evidence = evidence_of(task, measure, models=1)
    found, effects = exact(Alo(penalty=0.02, damping=0.1), evidence)
    h, start = entering(evidence.references[0], task.train_inputs)
    asked, _ = entering(evidence.references[0], task.query_inputs)
    targets = task.train_targets.numpy()
    v = fitted(h, targets, start, 0.02, 0.1)
    jacobians = np.einsum("nd,ab->nadb", h, np.eye(3)).reshape(24, 3, -1)
    slopes, curvatures = softmax_derivatives(h @ v, targets)
    steps = newton_without(jacobians, slopes, curvatures, (0.02 * v + 0.1 * (v - start)).ravel(), 0.12)
    f = task.measurement(measure)

    def outputs(weights):
        return f(torch.from_numpy(asked @ weights), task.query_targets).numpy()

    expected = np.array([outputs(v) - outputs(v + step.reshape(v.shape)) for step in steps])
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert 0 < effects.details()["largest_leverage"][0] < 1


def clouds(toy, evidence_of, n):
    task = toy("classification", n=n)
    return task, evidence_of(task, "margin", models=1)


def test_one_step_is_nearer_to_fitting_without_an_example_than_influence_is(toy, evidence_of):
    """Logistic regression: the step has the curvature of the others, and influence that of all."""
    task, evidence = clouds(toy, evidence_of, 30)
    found, _ = exact(Alo(penalty=0.02, damping=0.0), evidence)
    h, start = entering(evidence.references[0], task.train_inputs)
    asked, _ = entering(evidence.references[0], task.query_inputs)
    targets, margin = task.train_targets.numpy(), task.measurement("margin")

    def outputs(v):
        return margin(torch.from_numpy(asked @ v), task.query_targets).numpy()

    whole = fitted(h, targets, start, 0.02, 0.0)
    others = [fitted(np.delete(h, i, 0), np.delete(targets, i), start, 0.02, 0.0) for i in range(30)]
    expected = np.array([outputs(whole) - outputs(v) for v in others])
    jacobians = np.einsum("nd,ab->nadb", h, np.eye(3)).reshape(30, 3, -1)
    slopes, curvatures = softmax_derivatives(h @ whole, targets)
    matrix = np.einsum("nap,nab,nbq->pq", jacobians, curvatures, jacobians) + 30 * 0.02 * np.eye(whole.size)
    first_order = np.array(
        [outputs(whole) - outputs(whole + np.linalg.solve(matrix, j.T @ a).reshape(whole.shape))
         for j, a in zip(jacobians, slopes, strict=True)]
    )  # fmt: skip
    off, off_first = np.linalg.norm(found - expected), np.linalg.norm(first_order - expected)
    assert off < 0.2 * np.linalg.norm(expected)
    assert off < 0.6 * off_first


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_rescaled_influence_is_the_step_of_the_linearized_network(toy, evidence_of, kind):
    task = toy(kind, hidden=4, weights=WEIGHTS)
    measure = "margin" if kind == "classification" else "prediction"
    evidence = evidence_of(task, measure, models=1)
    found, _ = exact(Alo(layers="all", penalty=0.01, damping=0.05), evidence)
    module = task.module().double()
    module.load_state_dict(evidence.references[0].checkpoints[-1].state)

    def jacobian(inputs):
        rows = []
        for one in inputs:
            for k in range(task.outputs):
                parts = torch.autograd.grad(module(one[None])[0, k], list(module.parameters()))
                rows.append(torch.cat([part.flatten() for part in parts]))
        return torch.stack(rows).reshape(len(inputs), task.outputs, -1).numpy()

    z = module(task.train_inputs).detach()
    if kind == "classification":
        slopes, curvatures = softmax_derivatives(z.numpy(), task.train_targets.numpy())
    else:
        slopes = 2 * (z.numpy() - task.train_targets.numpy()[:, None])
        curvatures = np.full((24, 1, 1), 2.0)
    w = WEIGHTS.numpy()
    steps = newton_without(
        jacobian(task.train_inputs), w[:, None] * slopes, w[:, None, None] * curvatures, 0, 0.01 + 0.05
    )
    asked, f = module(task.query_inputs).detach(), task.measurement(measure)
    moves = torch.from_numpy(np.einsum("tcp,np->ntc", jacobian(task.query_inputs), steps))
    expected = [(f(asked, task.query_targets) - f(asked + move, task.query_targets)).numpy() for move in moves]
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_with_one_output_it_is_influence_over_one_minus_the_leverage(toy, evidence_of):
    task = toy("regression", hidden=4)
    evidence = evidence_of(task, "prediction", models=1)
    found, effects = exact(Alo(layers="all", penalty=0.0, damping=0.05), evidence)
    model = effects.model(evidence.references[0].checkpoints[-1])
    setting = effects._setting(model)
    z, jacobians = (part.numpy() for part in setting.point.outputs(effects.material.train))
    asked = setting.point.outputs(effects.material.queries)[1].numpy()[:, 0]
    j = jacobians[:, 0]
    inverse = np.linalg.inv(2 * j.T @ j + 23 * 0.05 * np.eye(j.shape[1]))
    leverages = 2 * np.einsum("np,pq,nq->n", j, inverse, j)
    influence = -2 * (z[:, 0] - task.train_targets.numpy())[:, None] * (j @ inverse @ asked.T)
    np.testing.assert_allclose(found, influence / (1 - leverages)[:, None], atol=1e-10)
    np.testing.assert_allclose(effects.details()["largest_leverage"][0], leverages.max(), rtol=1e-10)


def test_what_is_left_to_it_comes_from_the_recipe(toy, evidence_of):
    recipe = Recipe(lr=0.3, batch_size=8, epochs=4, precision="float64", weight_decay=0.03, momentum=0.5)
    evidence = evidence_of(toy("classification", recipe=recipe), "margin")
    made = Alo().attribute(evidence)
    assert made.details["penalty"] == 0.03
    assert made.details["damping"] == [unrolled_damping(recipe, 24)] * 2
    told = Alo(penalty=0.03, damping=unrolled_damping(recipe, 24)).attribute(evidence)
    np.testing.assert_array_equal(made.values, told.values)
    decoupled = toy("classification", recipe=recipe.model_copy(update={"optimizer": "adamw"}))
    assert Alo().penalty_of(decoupled) == 0
    partial = toy("classification", recipe=recipe.model_copy(update={"no_decay": ("*.bias",)}))
    with pytest.raises(ConfigError, match=r"found no_decay \*\.bias: use a number for penalty"):
        Alo().check(replace(evidence, task=partial))


@pytest.mark.parametrize("layers", ["last", "all"])
def test_without_a_recipe_the_damping_is_a_part_of_the_mean_eigenvalue(toy, evidence_of, layers):
    task = toy("classification", hidden=0)
    evidence = evidence_of(task, "margin", models=1)
    h, v = entering(evidence.references[0], task.train_inputs)
    _, curvatures = softmax_derivatives(h @ v, task.train_targets.numpy())
    trace = (np.square(h).sum(1) * np.trace(curvatures, axis1=1, axis2=2)).sum()
    task.recipe, task.loss = None, lambda outputs, targets: cross_entropy(outputs, targets, reduction="none")
    _, effects = exact(Alo(layers=layers), evidence)
    np.testing.assert_allclose(effects.details()["damping"], [0.1 * trace / 24 / v.size], rtol=1e-8)


def test_an_optimum_that_an_example_holds_alone_is_refused(toy, evidence_of):
    task = toy("regression")
    task.train_inputs = task.train_inputs.clone()
    task.train_inputs[:, 2] = 0
    task.train_inputs[5, 2] = 1  # nothing else tells of the third feature
    evidence = evidence_of(task, "prediction", models=1)
    with pytest.raises(ConfigError, match="alo: without one example the optimum is not unique"):
        Alo(penalty=0.0, damping=0.0).attribute(evidence)
    assert np.isfinite(Alo(penalty=0.1).attribute(evidence).values).all()


def test_a_singular_matrix_and_one_beyond_the_budget_are_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin", models=1)
    with pytest.raises(ConfigError, match="is singular: expected a larger penalty or damping"):
        Alo(layers="all", penalty=0.0, damping=0.0).attribute(evidence)
    with pytest.raises(ConfigError, match=r"alo: matrices of 15 x 15 parameters take .* more than half of memory_gb"):
        Alo(memory_gb=1e-6).attribute(evidence)


@pytest.mark.parametrize("layers", ["last", "all"])
def test_the_memory_budget_changes_only_rounding(toy, evidence_of, layers):
    evidence = evidence_of(toy("classification", hidden=4), "margin")
    wide = Alo(layers=layers).attribute(evidence).values
    narrow = Alo(layers=layers, memory_gb=5e-5).attribute(evidence).values
    np.testing.assert_allclose(narrow, wide, rtol=1e-5, atol=1e-7)


def test_queries_may_be_training_examples(toy, evidence_of):
    evidence = evidence_of(toy("classification"), "loss", queries=Queries("train", (3, 8)))
    values = Alo(penalty=0.1).attribute(evidence).values
    assert values.shape == (24, 2)
    assert (values[[3, 8], [0, 1]] < 0).all()  # an example lowers its own loss
