"""TracIn along Adam's steps against its formula, against torch's own optimizer, and on the last layer alone."""

import numpy as np
import pytest
import torch

from estimators.evidence import Evidence, Reference
from estimators.gradient_based.tracin import TracIn
from tests.estimators.exact import exact_values
from workers import Recipe, Run
from workers.errors import ConfigError
from workers.training.alone import train

ADAM = Recipe(optimizer="adam", lr=0.01, schedule="linear", batch_size=8, epochs=4, precision="float64", eps=1e-3)


def kept(toy, recipe, kind="classification", measure="margin", hidden=4):
    task = toy(kind, hidden=hidden, recipe=recipe)
    checkpoints = train(task, Run(0, np.arange(24), 0, (2, 4), optimizer_state=True))[1]
    return Evidence(24, 5, measure, references=(Reference(0, checkpoints),), task=task, seed=11)


def flat(checkpoint, place):
    return np.concatenate([v.numpy().ravel() for k, v in checkpoint.optimizer.items() if k.startswith(place)])


@pytest.mark.parametrize("eps_in", ["denominator", "root"])
@pytest.mark.parametrize("direction", ["preconditioned", "step"])
def test_it_equals_its_formula(toy, autograd, direction, eps_in):
    evidence = kept(toy, ADAM.model_copy(update={"eps_in": eps_in}))
    task, wanted = evidence.task, 0.0
    for one in evidence.references[0].checkpoints:
        g = autograd(task, one, task.loss, task.train_inputs, task.train_targets)
        q = autograd(task, one, task.measurement("margin"), task.query_inputs, task.query_targets)
        m, v, steps = flat(one, "first/"), flat(one, "second/"), one.step
        if direction == "step":
            m, v, steps = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2, steps + 1
            g = m / (1 - 0.9**steps)
        v = v / (1 - 0.999**steps)
        g = g / (np.sqrt(v) + 1e-3 if eps_in == "denominator" else np.sqrt(v + 1e-3))
        wanted = wanted - one.learning_rate * g @ q.T
    found = TracIn(direction=direction)
    np.testing.assert_allclose(exact_values(found, evidence), wanted, rtol=1e-9, atol=1e-13)
    assert found.attribute(evidence).details["moments"] == "kept"
    made = [TracIn(direction=direction, memory_gb=size).attribute(evidence).values for size in (1.0, 1e-5)]
    np.testing.assert_allclose(*made, rtol=1e-5, atol=1e-8)


def test_a_step_is_what_torch_s_adam_takes_on_the_example_next(toy, autograd):
    """On a linear output the difference of one step on the example alone, from the checkpoint's state."""
    recipe = ADAM.model_copy(update={"schedule": "constant"})
    evidence = kept(toy, recipe, "regression", "prediction", hidden=0)
    task, end = evidence.task, evidence.references[0].checkpoints[-1]
    found = exact_values(TracIn(direction="step", epochs=(4,)), evidence)
    for i in (0, 7):
        module = task.module().double()
        module.load_state_dict(end.state)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01, eps=1e-3)
        for name, value in module.named_parameters():
            held = {
                theirs: end.optimizer[f"{ours}/{name}"].clone()
                for ours, theirs in (("first", "exp_avg"), ("second", "exp_avg_sq"))
            }
            optimizer.state[value] = {**held, "step": torch.tensor(float(end.step))}
        before = module(task.query_inputs).detach().flatten()
        task.loss(module(task.train_inputs[i : i + 1]), task.train_targets[i : i + 1]).sum().backward()
        optimizer.step()
        torch.testing.assert_close(found[i], module(task.query_inputs).detach().flatten() - before, rtol=1e-8, atol=0)


def test_preconditioned_segments_have_the_units_of_leaving_an_example_out(toy):
    """With eps far above the second moments Adam divides by a constant, whatever the weights: the first-order effect is exact."""
    recipe = Recipe(optimizer="adam", lr=0.1, batch_size=24, epochs=4, precision="float64", eps=1e3)
    evidence = kept(toy, recipe.model_copy(update={"betas": (0.0, 0.999)}), "regression", "prediction")
    found = TracIn(direction="preconditioned", weights="segment")
    assert found.claims_units
    values = exact_values(found, evidence)

    def outputs(weights):
        module, _ = train(
            toy("regression", hidden=4, recipe=evidence.task.recipe, weights=weights), Run(0, np.arange(24), 0)
        )
        return module(evidence.task.query_inputs).detach().flatten()

    for i in (0, 7):
        without = torch.ones(24, dtype=torch.float64)
        without[i] = 0
        torch.testing.assert_close(values[i], outputs(None) - outputs(without), rtol=0.05, atol=1e-9)


@pytest.mark.parametrize("direction", ["preconditioned", "step"])
def test_for_sgd_it_is_the_gradient(toy, evidence_of, direction):
    evidence = evidence_of(toy("classification", hidden=4), "margin")
    torch.testing.assert_close(exact_values(TracIn(direction=direction), evidence), exact_values(TracIn(), evidence))
    assert "moments" not in TracIn(direction=direction).attribute(evidence).details


def test_expected_moments_are_those_of_less(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4, recipe=ADAM), "margin", models=1)
    with pytest.raises(
        ConfigError, match="the checkpoint of epoch 2 has none of adam's running means: expected `optim"
    ):
        TracIn(direction="preconditioned").attribute(evidence)
    made = TracIn(direction="step", moments="expected").attribute(evidence)
    assert made.details["moments"] == "expected"
    assert not TracIn(direction="step", weights="segment").claims_units


def test_the_last_layer_alone(toy, evidence_of, autograd):
    evidence = evidence_of(toy("classification", hidden=4), "margin", models=1)
    task, wanted = evidence.task, 0.0
    for one in evidence.references[0].checkpoints[1:]:
        g = autograd(task, one, task.loss, task.train_inputs, task.train_targets)[:, 16:]  # 3 x 4 weights, 3 biases
        q = autograd(task, one, task.measurement("margin"), task.query_inputs, task.query_targets)[:, 16:]
        wanted = wanted - one.learning_rate * g @ q.T
    np.testing.assert_allclose(exact_values(TracIn(parameters=("2.*",)), evidence), wanted, rtol=1e-9, atol=1e-13)


def test_an_optimizer_that_nobody_told_is_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification"), "margin", models=1)
    evidence.task.recipe = None
    evidence.task.loss = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    with pytest.raises(
        ConfigError, match="tracin: direction is that of the optimizer's steps, and the task has no `recipe`"
    ):
        TracIn(direction="step").check(evidence)
    TracIn().check(evidence)
