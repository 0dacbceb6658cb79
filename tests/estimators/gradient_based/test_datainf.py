"""DataInf against the paper's formula, written out layer by layer and example by example."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from estimators.gradient_based.datainf import DataInf
from workers import Recipe
from workers.errors import ConfigError

LAYERS = {"0": slice(0, 16), "2": slice(16, 31)}
"""Of the toy with four hidden units and three outputs: (3 + 1) 4 and (4 + 1) 3 parameters."""


def formula(evidence, autograd, damping):
    """Equation 5 of Kwon et al. 2023, with the sign and the 1/n of an example that is included."""
    task, n = evidence.task, evidence.n
    weights = np.ones(n) if task.train_weights is None else task.train_weights.numpy()
    total, dampings = np.zeros((n, evidence.t)), []
    for reference in evidence.references:
        last = reference.checkpoints[-1]
        losses = autograd(task, last, task.loss, task.train_inputs, task.train_targets)
        queries = autograd(task, last, task.measurement(evidence.measure), task.query_inputs, task.query_targets)
        own = []
        for at in LAYERS.values():
            g, size = losses[:, at], at.stop - at.start
            d = 0.1 * sum(w * (one @ one) for w, one in zip(weights, g, strict=True)) / (n * size)
            d = damping or d
            own.append(d)
            for q in range(evidence.t):
                v = queries[q, at]
                for k in range(n):
                    mean = sum(w * (v @ g[i]) * (g[i] @ g[k]) / (d + w * (g[i] @ g[i])) for i, w in enumerate(weights))
                    total[k, q] -= weights[k] * (v @ g[k] - mean / n) / d / n
        dampings.append(own)
    return total / len(evidence.references), dampings


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "weighted"])
def evidence(request, toy, evidence_of):
    weights = torch.linspace(0, 2, 24, dtype=torch.float64) if request.param else None
    return evidence_of(toy("classification", hidden=4, weights=weights), "margin")


@pytest.mark.parametrize("damping", [None, 0.05])
@pytest.mark.parametrize("memory", [2.0, 1e-6])
def test_it_is_the_papers_formula_in_any_budget(evidence, autograd, damping, memory):
    expected, dampings = formula(evidence, autograd, damping)
    got = DataInf(damping=damping or "mean_eigenvalue", memory_gb=memory).attribute(evidence)
    np.testing.assert_allclose(got.values, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert got.details["layers"] == list(LAYERS)
    np.testing.assert_allclose(got.details["damping"], dampings, rtol=1e-9)
    assert got.models == 2


def test_auto_is_the_damping_of_the_recipe(evidence):
    named = DataInf(damping=1 / (0.3 * 4 * 3)).attribute(evidence)
    np.testing.assert_allclose(DataInf(damping="auto").attribute(evidence).values, named.values, rtol=1e-6)


def test_far_damped_it_is_the_gradients_inner_product(evidence, autograd):
    task, total = evidence.task, 0.0
    weights = np.ones(24) if task.train_weights is None else task.train_weights.numpy()
    for reference in evidence.references:
        last = reference.checkpoints[-1]
        g = autograd(task, last, task.loss, task.train_inputs, task.train_targets) * weights[:, None]
        total = total - g @ autograd(task, last, task.measurement("margin"), task.query_inputs, task.query_targets).T
    got = DataInf(damping=1e6).attribute(evidence).values
    np.testing.assert_allclose(got, total / 2 / 24 / 1e6, rtol=1e-4, atol=1e-12)


def test_only_named_layers_are_looked_at(evidence):
    got = DataInf(parameters=("2.*",)).attribute(evidence)
    assert got.details["layers"] == ["2"]


def test_a_layer_without_gradients_is_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin", models=1)
    evidence.references[0].checkpoints[-1].state["2.weight"].zero_()  # nothing reaches the first layer
    with pytest.raises(ConfigError, match="no gradient in layer '0', so its mean eigenvalue is 0"):
        DataInf().attribute(evidence)
    assert np.isfinite(DataInf(damping=0.1).attribute(evidence).values).all()


def test_a_damping_that_nobody_tells_is_refused_before_training(toy, evidence_of):
    evidence = evidence_of(toy("regression"), "prediction", models=1)
    still = toy("regression", recipe=Recipe(warmup_steps=1, batch_size=24, epochs=1, precision="float64"))
    with pytest.raises(ConfigError, match="expected a damping of your own"):
        DataInf(damping="auto").check(replace(evidence, task=still, references=()))
    with pytest.raises(ValueError, match="damping"):
        DataInf(damping=0.0)
