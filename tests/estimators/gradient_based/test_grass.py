"""GraSS against its formula with the compression made explicit, in float64."""

import numpy as np
import pytest
import torch

from estimators.gradient_based.grass import Grass
from estimators.gradient_based.trak import Trak
from estimators.gradients.factored_projection import ranks_within
from estimators.gradients.factored_sparse_projection import FactoredSparseProjection
from estimators.gradients.forward import values_of
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from estimators.gradients.per_example import gradients
from estimators.gradients.sparse_projection import SparseProjection
from tests.estimators.exact import exact_values, sparse_matrices
from workers import Recipe
from workers.errors import ConfigError

RECIPE = Recipe(lr=0.3, batch_size=8, epochs=4, precision="float64")
WEIGHTS = torch.linspace(0.5, 2, 24, dtype=torch.float64)


@pytest.fixture(scope="module")
def evidence(toy, evidence_of):
    return evidence_of(toy("classification", hidden=4, recipe=RECIPE, weights=WEIGHTS), "margin")


def seen(evidence, objective):
    """Yield of every model (stream, model, objective's and measure's gradients (b, p), blocks)."""
    task = evidence.task
    train, queries = Examples.training(task, torch.float64), Examples.queried(task, evidence.queries, torch.float64)
    for stream, reference in enumerate(evidence.references):
        model = Model(task, reference.checkpoints[-1], torch.float64)
        pairs = [(objective, train), (task.objective(evidence.measure), queries)]
        blocks = Layers.of(model, pairs)[0].blocks
        yield stream, model, [gradients(model, *pair, 2**24) for pair in pairs], blocks


def compressions(stream, model, blocks, factored, k, seed):
    """Return the matrices (p, k), one a block that has a Fisher matrix of its own."""
    if factored:
        project = FactoredSparseProjection.random(blocks, ranks_within(blocks, k), seed, stream, torch.float64)
        return sparse_matrices(project, model)
    return [SparseProjection(model.p, k, seed, stream, torch.float64).matrix()]


@pytest.mark.parametrize("damping", ["mean_eigenvalue", 0.3])
@pytest.mark.parametrize("factored", [False, True])
def test_values_are_those_of_the_formula(evidence, factored, damping):
    found = []
    for stream, model, (left, right), blocks in seen(evidence, evidence.task.losses):
        total = torch.zeros(24, 5, dtype=torch.float64)
        for matrix in compressions(stream, model, blocks, factored, 6, evidence.seed):
            one, other = left @ matrix, right @ matrix
            fisher = sum(torch.outer(row, row) / w for row, w in zip(one, WEIGHTS, strict=True)) / 24
            ridge = 0.1 * fisher.diagonal().mean() if damping == "mean_eigenvalue" else damping
            total -= one @ torch.linalg.inv(fisher + ridge * torch.eye(len(fisher), dtype=torch.float64)) @ other.T / 24
        found.append(total)
    estimator = Grass(project_dim=6, factored=factored, damping=damping)
    torch.testing.assert_close(exact_values(estimator, evidence), torch.stack(found).mean(0), rtol=1e-8, atol=1e-12)
    assert sum(estimator.attribute(evidence).details["dimensions"]) <= 6


def test_no_more_parameters_than_dimensions_stay_as_they_are(evidence):
    models = list(seen(evidence, evidence.task.losses))
    p = models[0][1].p
    found = []
    for _, _, (left, right), _ in models:
        fisher = left.T @ (left / WEIGHTS[:, None]) / 24
        found.append(-left @ torch.linalg.inv(fisher + 0.5 * torch.eye(p, dtype=torch.float64)) @ right.T / 24)
    got = exact_values(Grass(project_dim=p, damping=0.5), evidence)
    torch.testing.assert_close(got, torch.stack(found).mean(0), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("projection", ["sparse", "factored_sparse"])
def test_trak_takes_the_same_compressions(toy, evidence_of, projection):
    task = toy("classification", hidden=4, recipe=RECIPE)
    evidence = evidence_of(task, "margin", models=1)
    margin = task.objective("margin")
    ((stream, model, (left, right), blocks),) = seen(evidence, margin)
    factored = projection == "factored_sparse"
    matrix = torch.cat(compressions(stream, model, blocks, factored, 7, evidence.seed), 1)
    phi, asked = left @ matrix, right @ matrix
    train = Examples.training(task, torch.float64)
    residuals = values_of(model, lambda module, batch: (-margin(module, batch)).sigmoid(), train)
    damped = phi.T @ phi + 0.5 * torch.eye(phi.shape[1], dtype=torch.float64)
    wanted = residuals[:, None] * (phi @ torch.linalg.inv(damped) @ asked.T)
    estimator = Trak(project_dim=7, projection=projection, damping=0.5)
    torch.testing.assert_close(exact_values(estimator, evidence), wanted, rtol=1e-8, atol=1e-12)
    assert estimator.attribute(evidence).details["dimension"] == phi.shape[1]


def test_an_example_that_weighs_nothing_gets_nothing(toy, evidence_of):
    weights = torch.ones(24, dtype=torch.float64)
    weights[3] = 0
    evidence = evidence_of(toy("classification", hidden=4, recipe=RECIPE, weights=weights), "margin")
    values = Grass(project_dim=6).attribute(evidence).values
    assert (values[3] == 0).all()
    assert np.isfinite(values).all()
    assert (values[4] != 0).all()


@pytest.mark.parametrize("factored", [False, True])
def test_features_larger_than_memory_are_refused(evidence, factored):
    with pytest.raises(ConfigError, match="expected a smaller project_dim or a larger memory_gb"):
        Grass(memory_gb=1e-6, factored=factored).attribute(evidence)
