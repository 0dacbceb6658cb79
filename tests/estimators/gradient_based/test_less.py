"""LESS against its formula, with the projection made explicit, and Adam's step against torch's own."""

import numpy as np
import pytest
import torch

from estimators.evidence import Evidence, Reference
from estimators.gradient_based.gas import Gas
from estimators.gradient_based.less import Less
from estimators.gradients.adam import Moments, adam_directions, expected_moments
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.projection import Projection
from workers import Recipe, Run
from workers.errors import ConfigError
from workers.training.alone import train

ADAM = Recipe(optimizer="adam", lr=0.01, schedule="linear", batch_size=8, epochs=4, precision="float64")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def explicit(task, dimension, seed):
    """P (p, k) of the toy network, by projecting unit vectors."""
    if dimension is None:
        return np.eye(31)
    from estimators.gradient_based import less

    project = Projection(31, dimension, seed, less._STREAM, torch.float64, 2**20)
    return project(torch.eye(31, dtype=torch.float64)).numpy()


@pytest.mark.parametrize("dimension", [None, 6])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_it_equals_its_formula(toy, evidence_of, autograd, optimizer, dimension):
    recipe = ADAM.model_copy(update={"optimizer": optimizer, "eps": 1e-4})
    task = toy("classification", hidden=4, recipe=recipe)
    evidence = evidence_of(task, "margin")
    rates, expected = recipe.learning_rates(24), 0.0
    p = explicit(task, dimension, evidence.seed)
    for reference in evidence.references:
        for checkpoint, rate in zip(reference.checkpoints[1:], (rates[:6].mean(), rates[6:].mean()), strict=True):
            g = autograd(task, checkpoint, task.loss, task.train_inputs, task.train_targets)
            q = autograd(task, checkpoint, task.measurement("margin"), task.query_inputs, task.query_targets)
            if optimizer != "sgd":
                mean, steps = g.mean(0), checkpoint.step
                second = mean**2 + g.var(0) / 8 * 16 / 23
                m = (0.9 * (1 - 0.9**steps) * mean + 0.1 * g) / (1 - 0.9 ** (steps + 1))
                v = (0.999 * (1 - 0.999**steps) * second + 0.001 * g**2) / (1 - 0.999 ** (steps + 1))
                g = m / (np.sqrt(v) + 1e-4)
            expected = expected - rate * unit(g @ p) @ unit(q @ p).T
    made = Less(moments="expected", project_dim=dimension).attribute(evidence)
    np.testing.assert_allclose(made.values, expected / 2, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert made.details["dimension"] == (dimension or 31)
    assert made.details.get("moments") == (None if optimizer == "sgd" else "expected")


@pytest.mark.parametrize("eps_in", ["denominator", "root"])
def test_the_direction_is_that_of_torch_s_own_step(eps_in):
    generator = torch.Generator().manual_seed(5)
    past = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    ours = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    parameter = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([parameter], lr=1.0, eps=1e-3)
    for gradient in past:
        parameter.grad = gradient.clone()
        optimizer.step()
    state, before = optimizer.state[parameter], parameter.detach().clone()
    moments = Moments(state["exp_avg"] / (1 - 0.9**9), state["exp_avg_sq"] / (1 - 0.999**9))
    parameter.grad = ours[0].clone()
    optimizer.step()
    recipe = ADAM.model_copy(update={"eps": 1e-3, "eps_in": eps_in})
    found = adam_directions(ours, moments, recipe, steps=9)[0]
    if eps_in == "denominator":
        torch.testing.assert_close(found, before - parameter.detach(), rtol=1e-12, atol=0)
    else:
        m, v = state["exp_avg"] / (1 - 0.9**10), state["exp_avg_sq"] / (1 - 0.999**10)
        torch.testing.assert_close(found, m / (v + 1e-3).sqrt(), rtol=1e-12, atol=0)


def test_expected_moments_are_those_of_batches_at_fixed_parameters(toy, evidence_of, autograd):
    task = toy("classification", hidden=4)
    checkpoint = evidence_of(task, "margin", models=1).references[0].checkpoints[-1]
    model, train = Model(task, checkpoint, torch.float64), Examples.training(task, torch.float64)
    found = expected_moments(model, task.losses, train, 6, 2**20)
    g = autograd(task, checkpoint, task.loss, task.train_inputs, task.train_targets)
    rng, drawn = np.random.default_rng(0), 40_000
    batches = np.stack([g[rng.permutation(24)[:6]].mean(0) for _ in range(drawn)])
    seconds = batches**2
    error = seconds.std(0) / np.sqrt(drawn)
    assert (np.abs(found.second.numpy() - seconds.mean(0)) < 5 * error + 1e-15).all()
    np.testing.assert_allclose(found.first, g.mean(0), atol=1e-12)
    whole = expected_moments(model, task.losses, train, 64, 2**20)
    torch.testing.assert_close(whole.second, whole.first.square())


def test_for_sgd_at_a_constant_rate_it_is_gas(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin")
    np.testing.assert_allclose(
        Less().attribute(evidence).values, Gas().attribute(evidence).values, rtol=1e-5, atol=1e-7
    )


def test_moments_may_be_those_that_checkpoints_keep(toy, autograd):
    task = toy("classification", hidden=4, recipe=ADAM)
    checkpoints = train(task, Run(0, np.arange(24), 0, (4,), optimizer_state=True))[1]
    (one,) = checkpoints
    evidence = Evidence(24, 5, "margin", references=(Reference(0, checkpoints),), task=task, seed=11)
    g = autograd(task, one, task.loss, task.train_inputs, task.train_targets)
    q = autograd(task, one, task.measurement("margin"), task.query_inputs, task.query_targets)
    m, v = (
        np.concatenate([x.numpy().ravel() for name, x in one.optimizer.items() if name.startswith(place)])
        for place in ("first/", "second/")
    )
    m, v, steps = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2, one.step + 1
    steps_taken = m / (1 - 0.9**steps) / (np.sqrt(v / (1 - 0.999**steps)) + 1e-8)
    wanted = -ADAM.learning_rates(24).mean() * unit(steps_taken) @ unit(q).T
    found = Less(moments="kept", project_dim=None).attribute(evidence).values
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


def test_the_memory_budget_changes_only_rounding(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4, recipe=ADAM), "margin")
    options = {"moments": "expected", "project_dim": 8}
    wide = Less(**options).attribute(evidence).values
    np.testing.assert_allclose(Less(**options, memory_gb=1e-6).attribute(evidence).values, wide, rtol=1e-5, atol=1e-8)


def test_what_the_optimizer_did_must_be_known(toy, evidence_of):
    evidence = evidence_of(toy("classification", recipe=ADAM), "margin", models=1)
    with pytest.raises(ConfigError, match="the recipe's optimizer is adam, whose running means are needed"):
        Less().check(evidence)
    with pytest.raises(ConfigError, match="the recipe's optimizer is adam"):
        Less().attribute(evidence)
    evidence.task.recipe = None
    evidence.task.loss = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    with pytest.raises(ConfigError, match="less follows the optimizer's steps, and the task has no `recipe`"):
        Less(moments="expected").check(evidence)
