"""SOURCE against its formula with explicit matrices, its two limits, and the true derivatives of trainings on a quadratic."""

import numpy as np
import pytest
import torch

from estimators.curvature.pseudo_gradients import ExactGradients, LossGradients, PseudoGradients
from estimators.evidence import Evidence, Reference
from estimators.gradient_based.ekfac import Ekfac
from estimators.gradient_based.kfac import Kfac
from estimators.gradient_based.source import Source
from estimators.gradient_based.tracin import TracIn
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from tests.estimators.exact import exact_values
from workers import Recipe, Run
from workers.errors import ConfigError
from workers.training.alone import train

SGD = Recipe(
    lr=0.3,
    batch_size=8,
    epochs=4,
    precision="float64",
    momentum=0.5,
    weight_decay=0.05,
    schedule="linear",
    nesterov=True,
)
ADAM = Recipe(optimizer="adam", lr=0.02, batch_size=8, epochs=4, precision="float64", weight_decay=0.05, eps=1e-3)
SHAPES = {"0.weight": (4, 3), "2.weight": (3, 4)}
"""Of the toy network's maps; each has a bias."""


def blockwise(flat, model):
    """Return rows (b, p) as two matrices (b, out, in + 1), the bias last."""
    tree = model.unflatten(flat)
    return [torch.cat([tree[w], tree[w.replace("weight", "bias")].unsqueeze(2)], 2) for w in SHAPES]


def sources(estimator, evidence, models):
    task, every = evidence.task, Examples.training(evidence.task, torch.float64)
    if estimator.fisher == "empirical":
        return [LossGradients(task, every) for _ in models]
    if estimator.fisher == "exact":
        return [ExactGradients(model, task, every) for model in models]
    return [PseudoGradients(model, task, every, evidence.seed, k, estimator.samples) for k, model in enumerate(models)]


def pseudo(source, model):
    (layers,) = Layers.of(model, [(source.objective, source.few())])
    return torch.cat([layers.flat(factors) for factors in source.batches(layers, 100)])


def curvature(rows, corrected):
    """Return K-FAC's matrix, or EK-FAC's, from gradients of rank one (m, out, in + 1): explicitly."""
    out = rows[:, :, -1]  # the bias's gradient is that of what leaves
    inner = (rows * out.unsqueeze(2)).sum(1) / out.square().sum(1, keepdim=True)
    sides = [side.T @ side / len(rows) for side in (out, inner)]
    values, vectors = zip(*(torch.linalg.eigh(side) for side in sides), strict=True)
    basis = torch.kron(vectors[0].contiguous(), vectors[1].contiguous())
    found = torch.kron(*values)
    if corrected:
        found = (rows.flatten(1) @ basis).square().mean(0)
    return basis @ torch.diag(found) @ basis.T


def adam_divisors(second, recipe):
    return (second.sqrt() + recipe.eps) ** 2 if recipe.eps_in == "denominator" else second + recipe.eps


def roots(mean_second, recipe, model):
    """Return P^(1/2) of both layers as matrices of one number a row times one a column."""
    found = []
    for (matrix,) in blockwise(mean_second.unsqueeze(0), model):
        square = adam_divisors(matrix, recipe)
        found.append((square.mean(1, keepdim=True) * square.mean(0, keepdim=True) / square.mean()) ** -0.25)
    return found


def by_formula(estimator, evidence, autograd, seconds=None):
    """Return - (1/n) sum over segments of <grad f, S_L ... S_(l+1) r>, the mean over models; (n, t)."""
    task, recipe = evidence.task, evidence.task.recipe
    weights = np.ones(task.n) if task.train_weights is None else task.train_weights.numpy()
    rates, f = recipe.learning_rates(task.n), task.measurement(evidence.measure)
    gain = 1 / (1 - recipe.momentum) if recipe.optimizer == "sgd" else 1.0
    total, drawn = 0.0, 0
    for reference in evidence.references:
        kept = reference.checkpoints[1:]
        each = len(kept) // estimator.segments
        groups = [kept[k : k + each] for k in range(0, len(kept), each)]
        models = [Model(task, one, torch.float64) for one in kept]
        made = sources(estimator, evidence, [None] * drawn + models)[drawn:]
        drawn += len(models)
        query = autograd(task, kept[-1], f, task.query_inputs, task.query_targets)
        asked, start = [m.flatten(1) for m in blockwise(torch.from_numpy(query), models[0])], 0
        steps = []
        for place, group in enumerate(groups):
            where = slice(place * each, (place + 1) * each)
            time = gain * rates[start : group[-1].step].sum()
            start = group[-1].step
            rows = [blockwise(pseudo(s, m), m) for s, m in zip(made[where], models[where], strict=True)]
            g = sum(autograd(task, one, task.loss, task.train_inputs, task.train_targets) for one in group) / each
            gradients = blockwise(torch.from_numpy(g * weights[:, None]), models[0])
            scale = [torch.ones(1, 1, dtype=torch.float64)] * 2
            if recipe.optimizer != "sgd":
                scale = roots(sum(seconds[id(one)] for one in group) / each, recipe, models[0])
            found = []
            for at, (g_block, d) in enumerate(zip(gradients, scale, strict=True)):
                a = curvature(torch.cat([one[at] for one in rows]) * d, estimator.curvature == "ekfac")
                d = d.expand(g_block.shape[1:]).flatten()
                h = torch.diag(1 / d) @ a @ torch.diag(1 / d)
                eye = torch.eye(len(h), dtype=torch.float64)
                p, shrink = torch.diag(d**2), 0.0
                if recipe.optimizer == "adamw":
                    shrink = recipe.weight_decay
                else:
                    h = h + recipe.weight_decay * eye
                one_step = p @ h + shrink * eye
                s = torch.linalg.matrix_exp(-time * one_step)
                r = torch.linalg.solve(one_step, (eye - s) @ p @ g_block.flatten(1).T)
                found.append((s, r))
            steps.append(found)
        for found in reversed(steps):
            for at, (s, r) in enumerate(found):
                total = total - (asked[at] @ r).T / task.n
                asked[at] = asked[at] @ s
    return (total / len(evidence.references)).numpy()


@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize(("kind", "fisher"), [("ekfac", "sampled"), ("ekfac", "exact"), ("kfac", "empirical")])
def test_values_are_those_of_the_formula(toy, evidence_of, autograd, kind, fisher, segments):
    task = toy("classification", hidden=4, recipe=SGD, weights=torch.linspace(0.5, 2, 24, dtype=torch.float64))
    evidence = evidence_of(task, "margin")
    estimator = Source(segments=segments, curvature=kind, fisher=fisher)
    wanted = by_formula(estimator, evidence, autograd)
    np.testing.assert_allclose(exact_values(estimator, evidence), wanted, rtol=1e-7, atol=1e-12)
    made = estimator.attribute(evidence)
    assert made.models == 2
    assert made.details["segments"] == [["epochs 2, 4"], ["epochs 2", "epochs 4"]][segments - 1]


@pytest.mark.parametrize(
    ("optimizer", "eps_in", "segments"), [("adam", "denominator", 1), ("adam", "root", 2), ("adamw", "denominator", 2)]
)
def test_adam_s_values_are_those_of_the_preconditioned_formula(toy, evidence_of, autograd, optimizer, eps_in, segments):
    recipe = ADAM.model_copy(update={"optimizer": optimizer, "eps_in": eps_in, "weight_decay": 0.0})
    if optimizer == "adamw":  # not divided by the second moment, so that it is a multiple of I
        recipe = recipe.model_copy(update={"weight_decay": 0.5})
    task = toy("classification", hidden=4, recipe=recipe)
    evidence = evidence_of(task, "margin")
    seconds = {}
    for one in (one for reference in evidence.references for one in reference.checkpoints):
        g = autograd(task, one, task.loss, task.train_inputs, task.train_targets)
        seconds[id(one)] = torch.from_numpy(g.mean(0) ** 2 + g.var(0) / 8 * 16 / 23)
    estimator = Source(segments=segments, moments="expected")
    wanted = by_formula(estimator, evidence, autograd, seconds)
    np.testing.assert_allclose(exact_values(estimator, evidence), wanted, rtol=1e-6, atol=1e-12)


def stretched(evidence: Evidence, **recipe) -> Evidence:
    """Return the same models, as if they had been trained by another recipe."""
    evidence.task.recipe = evidence.task.recipe.model_copy(update=recipe)
    return evidence


@pytest.mark.parametrize(("kind", "static"), [("ekfac", Ekfac), ("kfac", Kfac)])
def test_a_long_training_seen_at_its_end_is_influence(toy, evidence_of, kind, static):
    """One segment, one checkpoint, K to infinity: S is 0 and r is H^-1 g, H with the L2 term."""
    recipe = Recipe(lr=0.3, batch_size=8, epochs=4, precision="float64", weight_decay=0.05)
    evidence = stretched(evidence_of(toy("classification", hidden=4, recipe=recipe), "margin"), lr=1e9)
    wanted = exact_values(static(damping=1e-12), evidence)
    found = exact_values(Source(segments=1, epochs=(4,), curvature=kind), evidence)
    np.testing.assert_allclose(found, wanted, rtol=1e-7)
    np.testing.assert_allclose(exact_values(Source(segments=2, curvature=kind), evidence).shape, wanted.shape)


def test_a_short_training_is_tracin_s(toy, evidence_of):
    """T to 0: S is I and r is T g; at one checkpoint, as TracIn differentiates the query at every one."""
    recipe = SGD.model_copy(update={"schedule": "constant"})
    evidence = stretched(evidence_of(toy("classification", hidden=4, recipe=recipe), "margin"), lr=1e-7)
    wanted = exact_values(TracIn(weights="segment", epochs=(4,)), evidence)
    np.testing.assert_allclose(exact_values(Source(segments=1, epochs=(4,)), evidence), wanted, rtol=1e-4)


def descent(inputs, targets, start, recipe, seed):
    """Return the derivatives (p, n) of the last parameters of plain sgd on (x theta - y)^2 in every example's weight."""
    n, p = inputs.shape
    theta, derivative, rng = start.copy(), np.zeros((p, n)), np.random.default_rng(seed)
    for _ in range(recipe.epochs):
        order = rng.permutation(n)
        for first in range(0, n, recipe.batch_size):
            batch = order[first : first + recipe.batch_size]
            x, rate = inputs[batch], recipe.lr / len(batch)
            residual = x @ theta - targets[batch]
            derivative -= rate * 2 * x.T @ (x @ derivative)
            derivative[:, batch] -= rate * 2 * (x * residual[:, None]).T
            theta = theta - rate * 2 * x.T @ residual
    return derivative


@pytest.mark.parametrize("batch_size", [24, 4])
def test_on_a_quadratic_it_is_the_expected_derivative_of_the_training(toy, evidence_of, batch_size):
    """The exact derivative of the trained model in every example's weight, averaged over orders; small steps, many segments."""
    recipe = Recipe(lr=0.00025 * batch_size, batch_size=batch_size, epochs=40, precision="float64")
    task = toy("regression", recipe=recipe)
    everything, epochs = np.arange(24), tuple(range(41))
    checkpoints = train(task, Run(0, everything, 0, epochs))[1]
    evidence = Evidence(24, 5, "prediction", references=(Reference(0, checkpoints),), task=task, seed=0)
    x, q = (torch.cat([v, torch.ones(len(v), 1)], 1).numpy() for v in (task.train_inputs, task.query_inputs))
    state = checkpoints[0].state
    start = torch.cat([state["weight"], state["bias"].unsqueeze(1)], 1)[0].numpy()
    y = task.train_targets.numpy().reshape(-1)
    orders = 1 if batch_size == 24 else 50
    wanted = sum((q @ descent(x, y, start, recipe, seed)).T for seed in range(orders)) / orders
    found = Source(segments=40, fisher="exact").attribute(evidence).values
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()
    one = Source(segments=1, epochs=(40,), fisher="exact").attribute(evidence).values
    assert np.abs(one - wanted).max() > 0.1 * np.abs(wanted).max()


def kept_by(recipe: Recipe, toy, hidden: int = 4, kind: str = "classification", measure: str = "margin") -> Evidence:
    """Return one model, with the optimizer's state at the checkpoints after epochs 2 and 4."""
    task = toy(kind, hidden=hidden, recipe=recipe)
    checkpoints = train(task, Run(0, np.arange(task.n), 0, (2, 4), optimizer_state=True))[1]
    return Evidence(task.n, 5, measure, references=(Reference(0, checkpoints),), task=task, seed=11)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_s_kept_moments_are_those_of_its_steps(toy, autograd, optimizer):
    """The second moment of a training of one step: the square of the first batch's gradient."""
    recipe = ADAM.model_copy(update={"optimizer": optimizer, "batch_size": 24, "weight_decay": 0.0, "epochs": 1})
    task = toy("classification", hidden=4, recipe=recipe)
    start, end = train(task, Run(0, np.arange(24), 0, (0, 1), optimizer_state=True))[1]
    evidence = Evidence(24, 5, "margin", references=(Reference(0, (start, end)),), task=task, seed=11)
    g = autograd(task, start, task.loss, task.train_inputs, task.train_targets)
    estimator = Source(segments=1)
    wanted = by_formula(estimator, evidence, autograd, {id(end): torch.from_numpy(g.mean(0) ** 2)})
    np.testing.assert_allclose(exact_values(estimator, evidence), wanted, rtol=1e-6, atol=1e-12)


def test_a_short_training_of_adam_moves_by_its_preconditioned_gradients(toy, autograd):
    """T to 0: r is T P g, with P a number a row times one a column; for one output the rows say nothing."""
    recipe = ADAM.model_copy(update={"weight_decay": 0.0})
    evidence = stretched(kept_by(recipe, toy, hidden=0, kind="regression", measure="prediction"), lr=1e-9)
    found, wanted, start = exact_values(Source(segments=2), evidence), 0.0, 0
    task, kept = evidence.task, evidence.references[0].checkpoints
    query = autograd(task, kept[-1], task.measurement("prediction"), task.query_inputs, task.query_targets)
    for one in kept:
        v = torch.cat([one.optimizer[f"second/{name}"].flatten() for name in ("weight", "bias")]) / (
            1 - 0.999**one.step
        )
        g = autograd(task, one, task.loss, task.train_inputs, task.train_targets)
        wanted = wanted - (one.step - start) * 1e-9 / 24 * g @ np.diag(1 / (v.sqrt().numpy() + 1e-3)) @ query.T
        start = one.step
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_parameters_without_decay_have_none(toy, evidence_of, autograd):
    """A decay of all parameters of one layer alone is exact in its eigenvalues."""
    recipe = SGD.model_copy(update={"no_decay": ("2.*",)})
    evidence = evidence_of(toy("classification", hidden=4, recipe=recipe), "margin")
    spared = exact_values(Source(segments=2, parameters=("2.*",)), evidence)
    evidence.task.recipe = SGD.model_copy(update={"weight_decay": 0.0})
    torch.testing.assert_close(exact_values(Source(segments=2, parameters=("2.*",)), evidence), spared)
    evidence.task.recipe = recipe
    other = exact_values(Source(segments=2, parameters=("0.*",)), evidence)
    evidence.task.recipe = SGD
    torch.testing.assert_close(exact_values(Source(segments=2, parameters=("0.*",)), evidence), other)


def test_where_a_parameter_never_moved_nothing_comes_of_it(toy):
    """An input that is always 0 in training has a second moment of 0, and a query's gradient in it no effect."""
    task = toy("regression", recipe=ADAM)
    task.train_inputs[:, 1] = 0
    checkpoints = train(task, Run(0, np.arange(24), 0, (2, 4), optimizer_state=True))[1]
    evidence = Evidence(24, 5, "prediction", references=(Reference(0, checkpoints),), task=task, seed=11)
    task.recipe = ADAM.model_copy(update={"weight_decay": 0.0})
    found = exact_values(Source(segments=2), evidence)
    task.query_inputs[:, 1] = 0
    torch.testing.assert_close(exact_values(Source(segments=2), evidence), found)
    assert bool(torch.isfinite(found).all())


def test_memory_changes_no_value(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4, recipe=SGD), "margin")
    made = [Source(segments=2, memory_gb=size).attribute(evidence).values for size in (1.0, 2e-6)]
    np.testing.assert_allclose(made[0], made[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"clip_norm": 0.5}, r"the recipe has clip_norm 0\.5"),
        ({"ema": 0.9}, r"the recipe averages them by ema 0\.9"),
        ({"epochs": 2}, "3 segments need as many checkpoints, there can be 2"),
    ],
)
def test_trainings_that_it_cannot_follow_are_refused(toy, evidence_of, changed, said):
    evidence = evidence_of(toy("classification", recipe=SGD), "margin", models=1)
    evidence.task.recipe = SGD.model_copy(update=changed)
    with pytest.raises(ConfigError, match=said):
        Source().check(evidence)
    with pytest.raises(ConfigError, match=said):
        Source().attribute(evidence)


def test_optimizers_that_it_does_not_know_are_named_with_those_that_it_does(toy, evidence_of):
    evidence = evidence_of(toy("classification", recipe=SGD), "margin", models=1)
    evidence.task.recipe = SGD.model_copy(update={"optimizer": "lion"})
    with pytest.raises(ConfigError, match="source knows the optimizers sgd, adam, adamw, the recipe's is lion"):
        Source().check(evidence)


def test_a_task_without_a_recipe_is_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification"), "margin", models=1)
    evidence.task.recipe = None
    evidence.task.loss = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    with pytest.raises(ConfigError, match="the task has no `recipe` that tells them"):
        Source().check(evidence)


def test_checkpoints_that_do_not_make_segments_are_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", recipe=SGD), "margin", models=1)
    with pytest.raises(ConfigError, match=r"3 segments need equally many checkpoints each, .* has 2 after epoch 0"):
        Source().attribute(evidence)
    with pytest.raises(ConfigError, match="epoch 0 in `epochs` has no steps before it"):
        Source(segments=1, epochs=(0, 4)).attribute(evidence)


def test_moments_that_were_not_kept_are_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", recipe=ADAM), "margin", models=1)
    with pytest.raises(
        ConfigError, match="the checkpoint of epoch 2 has none of adam's running means: expected `optim"
    ):
        Source(segments=2).attribute(evidence)
    assert Source(segments=2, moments="expected").attribute(evidence).details["moments"] == "expected"
