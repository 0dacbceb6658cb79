"""K-FAC, EK-FAC and Shampoo as estimators: their formula, their dampings, what they tell, what they refuse."""

import numpy as np
import pytest
import torch

from estimators.curvature.damping import unrolled_damping
from estimators.curvature.kronecker_fit import Fit
from estimators.curvature.pseudo_gradients import ExactGradients, LossGradients, PseudoGradients
from estimators.evidence import Evidence, Reference
from estimators.gradient_based.ekfac import Ekfac
from estimators.gradient_based.kfac import Kfac
from estimators.gradient_based.shampoo import Shampoo
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from estimators.gradients.per_example import gradients
from tests.estimators.gradients.test_structures import Own
from workers import Recipe
from workers.errors import ConfigError, DivergedError
from workers.runs import Checkpoint

RECIPE = Recipe(lr=0.3, batch_size=8, epochs=4, precision="float64", weight_decay=0.02)


def by_formula(estimator, evidence, shift):
    """Return the mean over models of - (1/n) G_q^T (F + shift I)^-1 G_i with F a matrix (n, t)."""
    task, found = evidence.task, []
    for stream, reference in enumerate(evidence.references):
        model = Model(task, reference.checkpoints[-1], torch.float64)
        train, queries = Examples.training(task, torch.float64), Examples.queried(task, evidence.queries, torch.float64)
        source = PseudoGradients(model, task, train, evidence.seed, stream, estimator.samples)
        if estimator.fisher == "empirical":
            source = LossGradients(task, train)
        if estimator.fisher == "exact":
            source = ExactGradients(model, task, train)
        (layers,) = Layers.of(model, [(source.objective, source.few())])
        curvature = estimator.curvature(Fit(layers, source, 2**24)).dense()
        left = gradients(model, task.losses, train, 2**24)
        right = gradients(model, task.objective(evidence.measure), queries, 2**24)
        eye = torch.eye(model.p, dtype=torch.float64)
        found.append(-left @ torch.linalg.solve(curvature + shift * eye, right.T) / task.n)
    return torch.stack(found).mean(0).numpy()


@pytest.mark.parametrize(("fisher", "samples"), [("sampled", 1), ("sampled", 3), ("exact", 1), ("empirical", 1)])
@pytest.mark.parametrize("kind", [Kfac, Ekfac, Shampoo])
def test_values_are_those_of_the_formula(toy, evidence_of, kind, fisher, samples):
    task = toy("classification", hidden=4, recipe=RECIPE, weights=torch.linspace(0.5, 2, 24, dtype=torch.float64))
    evidence = evidence_of(task, "margin")
    estimator = kind(fisher=fisher, samples=samples, damping="auto")
    made = estimator.attribute(evidence)
    wanted = by_formula(estimator, evidence, unrolled_damping(RECIPE, task.n) + 0.02)
    np.testing.assert_allclose(made.values, wanted, rtol=1e-5, atol=1e-8)


def test_the_damping_is_told_and_can_be_chosen(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4, recipe=RECIPE), "margin")
    auto = unrolled_damping(RECIPE, 24)
    assert Ekfac(damping="auto").attribute(evidence).details["damping"] == pytest.approx([auto + 0.02] * 2)
    plain = Ekfac(damping=0.5, weight_decay=False)
    assert plain.attribute(evidence).details["damping"] == [0.5, 0.5]
    np.testing.assert_allclose(plain.attribute(evidence).values, by_formula(plain, evidence, 0.5), rtol=1e-5, atol=1e-8)
    by_layer = Ekfac().attribute(evidence).details["damping"]
    assert [len(each) for each in by_layer] == [2, 2]


def test_by_default_every_layer_is_damped_by_a_tenth_of_its_mean_eigenvalue(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4, recipe=RECIPE), "margin", models=1)
    task = evidence.task
    model = Model(task, evidence.references[0].checkpoints[-1], torch.float64)
    train, queries = Examples.training(task, torch.float64), Examples.queried(task, evidence.queries, torch.float64)
    source = PseudoGradients(model, task, train, evidence.seed)
    (layers,) = Layers.of(model, [(source.objective, source.few())])
    fit = Fit(layers, source, 2**24)
    dense = fit.corrected(fit.kfac()).dense()
    shift = torch.zeros(model.p, dtype=torch.float64)
    for where in (slice(0, 16), slice(16, 31)):  # 4 x (3 + 1) and 3 x (4 + 1) parameters, layer by layer
        shift[where] = 0.1 * dense.diagonal()[where].mean() + 0.02
    left = gradients(model, task.losses, train, 2**24)
    right = gradients(model, task.objective("margin"), queries, 2**24)
    wanted = -left @ torch.linalg.solve(dense + shift.diag(), right.T) / task.n
    np.testing.assert_allclose(Ekfac().attribute(evidence).values, wanted.numpy(), rtol=1e-5, atol=1e-8)


def test_weight_decay_of_some_parameters_only_is_refused_before_anything_is_trained(toy, evidence_of):
    partial = toy("classification", recipe=RECIPE.model_copy(update={"no_decay": ("*.bias", "bias")}))
    with pytest.raises(ConfigError, match="use weight_decay: false"):
        Ekfac().check(Evidence(24, 5, "margin", task=partial))
    Ekfac(weight_decay=False).check(Evidence(24, 5, "margin", task=partial))


def test_a_layer_without_gradients_is_named(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin", models=1)
    (reference,) = evidence.references
    last = reference.checkpoints[-1]
    dead = {name: value * 0 if name == "2.weight" else value for name, value in last.state.items()}
    held = Reference(0, (Checkpoint(last.epoch, last.step, last.learning_rate, dead),))
    silent = Evidence(24, 5, "margin", references=(held,), task=evidence.task)
    with pytest.raises(ConfigError, match=r"ekfac: the gradients of '0\.weight' are all 0"):
        Ekfac().attribute(silent)
    assert np.isfinite(Ekfac(damping=0.1).attribute(silent).values).all()


def test_without_a_recipe_the_damping_is_a_part_of_the_mean_eigenvalue_and_that_is_told(toy, evidence_of):
    task = toy("classification", hidden=4, recipe=RECIPE)
    given = evidence_of(task, "margin")
    own = Evidence(task.n, task.t, "margin", references=given.references, task=Own(task), seed=given.seed)
    made = Ekfac(damping="auto").attribute(own)
    assert "no recipe" in made.details["damping_from"]
    same = Ekfac(damping="mean_eigenvalue", weight_decay=False)
    # The task that trains itself draws no targets: signs and eigenvectors of the Hessian take their place.
    assert np.corrcoef(made.values.ravel(), same.attribute(given).values.ravel())[0, 1] > 0.8


def test_a_diverged_model_is_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin", models=1)
    (reference,) = evidence.references
    last = reference.checkpoints[-1]
    broken = Checkpoint(last.epoch, last.step, last.learning_rate, {k: v * torch.inf for k, v in last.state.items()})
    bad = Evidence(24, 5, "margin", references=(Reference(0, (broken,)),), task=evidence.task)
    with pytest.raises(DivergedError, match="the reference model diverged"):
        Ekfac().attribute(bad)


def test_a_measure_without_a_gradient_is_refused(toy, evidence_of):
    with pytest.raises(ConfigError, match="has no gradient"):
        Ekfac().check(evidence_of(toy("classification"), "correct"))


def test_memory_changes_no_value(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin")
    made = [Ekfac(memory_gb=size).attribute(evidence).values for size in (1.0, 2e-6)]
    np.testing.assert_allclose(made[0], made[1], rtol=1e-5, atol=1e-8)
