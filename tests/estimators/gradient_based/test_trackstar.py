"""TrackStar against its formula with the projection, the second moment and R^(-1/2) made explicit, in float64."""

import numpy as np
import pytest
import torch

from estimators.gradient_based.trackstar import TrackStar, balanced
from estimators.gradients.factored_projection import FactoredProjection, equal_ranks
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from estimators.gradients.per_example import gradients
from estimators.gradients.second_moment import OF_BATCHES, OF_EXAMPLES
from tests.estimators.exact import exact_values, matrices
from workers import Recipe
from workers.errors import ConfigError

SGD = Recipe(lr=0.3, batch_size=8, epochs=4, precision="float64")
ADAM = Recipe(optimizer="adam", lr=0.03, batch_size=8, epochs=4, precision="float64", eps=1e-3)
IN_ROOT = ADAM.model_copy(update={"optimizer": "adamw", "eps_in": "root", "accumulate": 2})
WEIGHTS = torch.linspace(0.5, 2, 24, dtype=torch.float64)


def divisor(rows, recipe):
    """Return sqrt(V) with its eps, (p,), from the gradients of the weighted losses (n, p)."""
    if recipe.optimizer == "sgd":
        return rows.square().mean(0).sqrt() + 1e-8
    n, size = len(rows), recipe.batch_size * recipe.accumulate
    moment = rows.mean(0).square() + rows.var(0, correction=0) / size * (n - size) / (n - 1)
    return (moment + recipe.eps).sqrt() if recipe.eps_in == "root" else moment.sqrt() + recipe.eps


def power(matrix, exponent):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values**exponent) @ vectors.T


def oracle(evidence, rank, mixing, damping):
    task, found = evidence.task, []
    train, queries = Examples.training(task, torch.float64), Examples.queried(task, evidence.queries, torch.float64)
    for stream, reference in enumerate(evidence.references):
        model = Model(task, reference.checkpoints[-1], torch.float64)
        pairs = [(task.losses, train), (task.objective(evidence.measure), queries)]
        left, right = (gradients(model, *pair, 2**24) for pair in pairs)
        blocks = Layers.of(model, pairs)[0].blocks
        project = FactoredProjection.random(blocks, equal_ranks(blocks, rank), evidence.seed, stream, torch.float64)
        root = divisor(left, task.recipe)
        ours, theirs = [], []
        for matrix in matrices(project, model):
            one, other = (left / root) @ matrix, (right / root) @ matrix
            of_train = one.T @ (one / WEIGHTS[:, None]) / 24
            mixed = mixing * other.T @ other / 5 + (1 - mixing) * of_train
            ridge = 0.1 * mixed.trace() / len(mixed) if damping == "mean_eigenvalue" else damping
            half = power(mixed + ridge * torch.eye(len(mixed), dtype=torch.float64), -0.5)
            ours.append(one @ half)
            theirs.append(other @ half)
        g, asked = torch.cat(ours, 1), torch.cat(theirs, 1)
        found.append(-(g / g.norm(dim=1, keepdim=True)) @ (asked / asked.norm(dim=1, keepdim=True)).T)
    return torch.stack(found).mean(0)


@pytest.mark.parametrize("damping", ["mean_eigenvalue", 0.2])
@pytest.mark.parametrize("mixing", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(("recipe", "moment"), [(SGD, OF_EXAMPLES), (ADAM, OF_BATCHES), (IN_ROOT, OF_BATCHES)])
def test_values_are_those_of_the_formula(toy, evidence_of, recipe, moment, mixing, damping):
    evidence = evidence_of(toy("classification", hidden=4, recipe=recipe, weights=WEIGHTS), "margin")
    estimator = TrackStar(rank=2, mixing=mixing, damping=damping)
    wanted = oracle(evidence, 2, mixing, damping)
    torch.testing.assert_close(exact_values(estimator, evidence), wanted, rtol=1e-8, atol=1e-10)
    details = estimator.attribute(evidence).details
    assert details["second_moment"] == moment
    assert details["mixing"] == [mixing, mixing]


def test_the_queries_share_is_that_at_which_the_eigenvalues_meet(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4, recipe=SGD, weights=WEIGHTS), "margin", models=1)
    estimator = TrackStar(rank=2)
    (mixing,) = estimator.attribute(evidence).details["mixing"]
    assert 0 < mixing < 1
    fixed = exact_values(TrackStar(rank=2, mixing=mixing), evidence)
    torch.testing.assert_close(exact_values(estimator, evidence), fixed, rtol=1e-12, atol=1e-12)


def diagonal(*values):
    return torch.diag(torch.tensor(values, dtype=torch.float64))


def test_eigenvalues_of_all_layers_are_put_in_one_order():
    ours, theirs = torch.arange(200, 0, -1.0, dtype=torch.float64), torch.linspace(10, 1, 200, dtype=torch.float64)
    place = round(200 * 1000 / 65536) - 1  # the third
    wanted = float(ours[place] / (ours[place] + theirs[place]))
    cut = [([one[:60].diag(), one[60:].diag()]) for one in (ours, theirs)]
    assert balanced(*cut) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs", "share"),
    [
        (diagonal(4.0, 2.0), diagonal(1.0, 0.0), 0.8),
        (diagonal(4.0, 2.0), diagonal(0.0, 0.0), 1.0),
        (diagonal(0.0, 0.0), diagonal(0.0, 0.0), 0.0),
    ],
)
def test_few_components_meet_at_the_first(ours, theirs, share):
    assert balanced([ours], [theirs]) == share


def test_examples_of_other_lengths_have_the_same_cosine_and_one_of_weight_0_has_none(toy, evidence_of):
    weights = torch.ones(24, dtype=torch.float64)
    weights[3] = 0
    evidence = evidence_of(toy("classification", hidden=4, recipe=SGD, weights=weights), "margin")
    values = TrackStar(rank=2).attribute(evidence).values
    assert (values[3] == 0).all()
    assert (np.abs(values[[0, 4]]) > 0).all()
    assert np.abs(values).max() <= 1


def test_a_parameter_that_no_example_moves_is_left_out(toy, evidence_of):
    task = toy("classification", recipe=SGD)
    task.train_inputs[:, 1] = 0
    evidence = evidence_of(task, "margin")
    for reference in evidence.references:
        reference.checkpoints[-1].state["weight"][:, 1] = 0  # the queries' second input changes no output
    values = exact_values(TrackStar(), evidence)
    task.query_inputs[:, 1] = 0
    torch.testing.assert_close(values, exact_values(TrackStar(), evidence), rtol=1e-10, atol=1e-12)


def test_features_larger_than_memory_are_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4, recipe=SGD), "margin", models=1)
    with pytest.raises(ConfigError, match="expected a smaller rank or a larger memory_gb"):
        TrackStar(memory_gb=1e-6).attribute(evidence)
