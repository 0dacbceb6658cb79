"""GAS, and inner products and cosines at the trained model, against loops over examples by plain autograd."""

import numpy as np
import pytest
import torch

from estimators.evidence import Evidence, Reference
from estimators.gradient_based.gas import Gas
from estimators.gradient_based.grad_cos import GradCos
from estimators.gradient_based.grad_dot import GradDot
from workers import Recipe
from workers.errors import ConfigError
from workers.runs import Checkpoint

COSINE = Recipe(lr=0.3, schedule="cosine", batch_size=8, epochs=4, precision="float64", momentum=0.5)
WEIGHTS = torch.linspace(0.5, 2, 24, dtype=torch.float64)
LAYERS = [slice(0, 16), slice(16, None)]
"""The parameters of the toy network's two layers."""


def unit(rows, parts):
    return np.hstack([rows[:, part] / np.linalg.norm(rows[:, part], axis=1, keepdims=True) for part in parts])


def oracle(evidence, autograd, chosen, parts=None):
    """The mean over models of - sum of weight(c) <g_i, g_q> over the checkpoints; of directions where parts are given."""
    task, total = evidence.task, 0.0
    f = task.measurement(evidence.measure)
    for reference in evidence.references:
        for checkpoint, weight in chosen(reference):
            g = autograd(task, checkpoint, task.loss, task.train_inputs, task.train_targets)
            q = autograd(task, checkpoint, f, task.query_inputs, task.query_targets)
            if parts is None:
                g = g * WEIGHTS.numpy()[:, None]
            else:
                g, q = unit(g, parts), unit(q, parts)
            total = total - weight * g @ q.T
    return total / len(evidence.references)


def last(reference):
    return [(reference.checkpoints[-1], 1.0)]


def after_start(reference):
    return [(checkpoint, checkpoint.learning_rate) for checkpoint in reference.checkpoints if checkpoint.epoch > 0]


CASES = [
    (GradDot(), last, None),
    (GradCos(), last, [slice(None)]),
    (Gas(), after_start, [slice(None)]),
    (Gas(norm="layer"), after_start, LAYERS),
    (Gas(epochs=(4,)), lambda reference: after_start(reference)[-1:], [slice(None)]),
]


@pytest.mark.parametrize(("estimator", "chosen", "parts"), CASES, ids=lambda one: getattr(one, "name", ""))
@pytest.mark.parametrize(("kind", "name"), [("classification", "margin"), ("regression", "squared_error")])
def test_it_equals_a_loop_over_examples(estimator, chosen, parts, kind, name, toy, evidence_of, autograd):
    evidence = evidence_of(toy(kind, hidden=4, recipe=COSINE, weights=WEIGHTS), name)
    got = estimator.attribute(evidence)
    expected = oracle(evidence, autograd, chosen, parts)
    np.testing.assert_allclose(got.values, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert got.models == 2


@pytest.mark.parametrize("estimator", [GradDot(), GradCos(), Gas(), Gas(norm="layer")], ids=lambda one: one.name)
def test_the_memory_budget_changes_only_rounding(estimator, toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin")
    narrow = estimator.model_copy(update={"memory_gb": 1e-6})
    np.testing.assert_allclose(
        narrow.attribute(evidence).values, estimator.attribute(evidence).values, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("estimator", [GradCos(), Gas()], ids=lambda one: one.name)
def test_an_example_that_weighs_nothing_has_no_direction(estimator, toy, evidence_of):
    weights = torch.ones(24, dtype=torch.float64)
    weights[5] = 0
    values = estimator.attribute(evidence_of(toy("classification", hidden=4, weights=weights), "margin")).values
    assert not values[5].any()
    assert values[4].any()


def test_how_well_an_example_is_fitted_does_not_matter(toy, evidence_of):
    """The loss of example 3 falls by a factor of a million: TracIn's values with it, and not these."""
    task = toy("regression", hidden=4)
    evidence = evidence_of(task, "prediction", models=1)
    module = task.module().double()
    module.load_state_dict(evidence.references[0].checkpoints[-1].state)
    before = GradCos().attribute(evidence).values
    with torch.no_grad():
        output = module(task.train_inputs[3:4])[0, 0]
        task.train_targets = task.train_targets.clone()
        task.train_targets[3] = output + 1e-6 * (task.train_targets[3] - output)
    np.testing.assert_allclose(GradCos().attribute(evidence).values[3], before[3], rtol=1e-4)


def test_what_is_not_there_is_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin", models=1)
    with pytest.raises(ConfigError, match=r"gas needs checkpoints of epochs \[3\], the reference model of seed 0 has"):
        Gas(epochs=(3,)).attribute(evidence)
    untold = tuple(Checkpoint(c.epoch, c.step, float("nan"), c.state) for c in evidence.references[0].checkpoints)
    given = Evidence(24, 5, "margin", references=(Reference(0, untold),), task=evidence.task)
    with pytest.raises(ConfigError, match="gas weights a checkpoint by its learning rate, and the task told none"):
        Gas().attribute(given)
    with pytest.raises(ConfigError, match="measure 'correct' has no gradient"):
        GradDot().check(evidence_of(toy("classification"), "correct", models=1))
