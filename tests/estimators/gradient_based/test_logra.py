"""LoGra against its formula with the projections made explicit, in float64."""

import numpy as np
import pytest
import torch

from estimators.curvature.kronecker_fit import Fit
from estimators.curvature.leading import leading
from estimators.curvature.projected_kronecker import projected_ekfac
from estimators.curvature.pseudo_gradients import LossGradients
from estimators.gradient_based.logra import Logra
from estimators.gradients.factored_projection import FactoredProjection, equal_ranks, ranks_within
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from estimators.gradients.per_example import gradients
from tests.estimators.exact import exact_values, matrices
from tests.estimators.modules import CASES, setting
from workers import Recipe
from workers.errors import ConfigError

RECIPE = Recipe(lr=0.3, batch_size=8, epochs=4, precision="float64")


def explicit(project, model):
    """Return the projection's matrices (size of a block, k), block by block, and where the block's parameters are."""
    numbers = model.unflatten(torch.arange(model.p, dtype=torch.float64).unsqueeze(0))
    for block, (out, inner) in zip(project.blocks, project.sides, strict=True):
        sides = [
            torch.eye(size, dtype=torch.float64) if side.matrix is None else side.matrix
            for side, size in zip((out, inner), block.shape, strict=True)
        ]
        yield block.gathered(numbers).flatten().long(), torch.kron(sides[0].contiguous(), sides[1].contiguous())


def kinds(name):
    task, model, train, _ = setting(name)
    (layers,) = Layers.of(model, [(task.losses, train)])
    ranks = equal_ranks(layers.blocks, 2)
    curvature = Fit(layers, LossGradients(task, train), 2**24).kfac()
    drawn = FactoredProjection.random(layers.blocks, ranks, seed=1, stream=0, dtype=torch.float64)
    return task, model, train, layers, {"random": drawn, "pca": leading(curvature, ranks)}


@pytest.mark.parametrize("kind", ["random", "pca"])
@pytest.mark.parametrize("name", CASES)
def test_projected_factors_are_products_with_the_explicit_matrix(name, kind):
    task, model, train, layers, made = kinds(name)
    project = made[kind]
    found, rows = project(layers.factors(train)), gradients(model, task.losses, train, 2**30)
    wanted = torch.cat([rows[:, where] @ matrix for where, matrix in explicit(project, model)], 1)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert found.shape[1] == project.k == sum(project.sizes)


@pytest.mark.parametrize("init", ["random", "pca"])
def test_values_are_those_of_the_formula(toy, evidence_of, init):
    weights = torch.linspace(0.5, 2, 24, dtype=torch.float64)
    task = toy("classification", hidden=4, recipe=RECIPE, weights=weights)
    evidence = evidence_of(task, "margin")
    estimator, found = Logra(rank=2, init=init), []
    for stream, reference in enumerate(evidence.references):
        model = Model(task, reference.checkpoints[-1], torch.float64)
        train, queries = Examples.training(task, torch.float64), Examples.queried(task, evidence.queries, torch.float64)
        (layers,) = Layers.of(model, [(task.losses, train)])
        ranks = equal_ranks(layers.blocks, 2)
        project = FactoredProjection.random(layers.blocks, ranks, evidence.seed, stream, torch.float64)
        if init == "pca":
            project = leading(Fit(layers, LossGradients(task, train), 2**24).kfac(), ranks)
        left = gradients(model, task.losses, train, 2**24)
        right = gradients(model, task.objective("margin"), queries, 2**24)
        total = torch.zeros(24, 5, dtype=torch.float64)
        for where, matrix in explicit(project, model):
            one, other = left[:, where] @ matrix, right[:, where] @ matrix
            moment = sum(torch.outer(row, row) / w for row, w in zip(one, weights, strict=True)) / 24
            damped = moment + 0.1 * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)
            total -= one @ torch.linalg.solve(damped, other.T) / 24
        found.append(total)
    np.testing.assert_allclose(
        estimator.attribute(evidence).values, torch.stack(found).mean(0).numpy(), rtol=1e-5, atol=1e-8
    )


def sides_of(layers, task, train):
    """Yield what enters and what leaves every block (positions, size), the latter by the roots of the weights."""
    (factors,) = LossGradients(task, train).batches(layers, len(train))
    for factor in factors:
        yield factor.inputs.flatten(0, 1), factor.outputs.flatten(0, 1)


@pytest.mark.parametrize("damping", ["mean_eigenvalue", 0.3])
@pytest.mark.parametrize("init", ["random", "pca"])
def test_ekfac_on_projected_factors_is_its_formula(toy, evidence_of, init, damping):
    weights = torch.linspace(0.5, 2, 24, dtype=torch.float64)
    task = toy("classification", hidden=4, recipe=RECIPE, weights=weights)
    evidence, found = evidence_of(task, "margin"), []
    for stream, reference in enumerate(evidence.references):
        model = Model(task, reference.checkpoints[-1], torch.float64)
        train, queries = Examples.training(task, torch.float64), Examples.queried(task, evidence.queries, torch.float64)
        (layers,) = Layers.of(model, [(task.losses, train)])
        ranks = equal_ranks(layers.blocks, 3)
        project = FactoredProjection.random(layers.blocks, ranks, evidence.seed, stream, torch.float64)
        if init == "pca":
            project = leading(Fit(layers, LossGradients(task, train), 2**24).kfac(), ranks)
        left = gradients(model, task.losses, train, 2**24)
        right = gradients(model, task.objective("margin"), queries, 2**24)
        total = torch.zeros(24, 5, dtype=torch.float64)
        blocks = zip(matrices(project, model), project.sides, sides_of(layers, task, train), strict=True)
        for matrix, (out, inner), (entered, gone) in blocks:
            one, other = left @ matrix, right @ matrix
            a, s = inner.of(entered), out.of(gone)
            vectors = torch.kron(*(torch.linalg.eigh(x.T @ x / 24)[1].contiguous() for x in (s, a)))
            values = ((one @ vectors).square() / weights[:, None]).mean(0)
            ridge = 0.1 * values.mean() if damping == "mean_eigenvalue" else damping
            total -= one @ vectors @ torch.diag(1 / (values + ridge)) @ vectors.T @ other.T / 24
        found.append(total)
    estimator = Logra(rank=3, init=init, curvature="ekfac", damping=damping)
    torch.testing.assert_close(exact_values(estimator, evidence), torch.stack(found).mean(0), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_projected_factors_are_those_of_the_projected_gradients(name):
    _, _, train, layers, made = kinds(name)
    for project in made.values():
        factors = project.factors(layers.factors(train))
        for factor, block, part in zip(
            factors, project.projected, project(layers.factors(train)).split(project.sizes, 1), strict=True
        ):
            assert tuple(factor.formed().shape[1:]) == block.shape
            torch.testing.assert_close(factor.formed().flatten(1), part)


@pytest.mark.parametrize("name", ["text", "normalized", "odd", "cnn"])
def test_ekfac_in_the_whole_space_is_that_of_all_parameters(name):
    """Where nothing is projected the eigenvalues are those of EK-FAC, whatever kinds of layers there are."""
    task, model, train, _ = setting(name)
    (layers,) = Layers.of(model, [(task.losses, train)])
    source = LossGradients(task, train)
    fit = Fit(layers, source, 2**24)
    whole = fit.corrected(fit.kfac())
    project = FactoredProjection.random(layers.blocks, equal_ranks(layers.blocks, 10_000), 0, 0, torch.float64)
    features = [one.formed().flatten(1) for one in layers.factors(train)]
    for basis, ours, block in zip(
        whole.bases, projected_ekfac(layers, source, project, features, 2**24), layers.blocks, strict=True
    ):
        rows = torch.randn(2, block.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        if block.form == "rows":  # an embedding's tokens have a diagonal there
            continue
        turned = basis.into(rows.reshape(-1, *block.shape)) / (basis.eigenvalues + 0.1)
        torch.testing.assert_close(ours.solved(rows, 0.1), basis.back(turned).flatten(1), rtol=1e-8, atol=1e-10)


def test_random_sides_keep_inner_products_in_expectation():
    task, model, train, _ = setting("mlp")
    (layers,) = Layers.of(model, [(task.losses, train)])
    factors, rows = layers.factors(train), gradients(model, task.losses, train, 2**30)
    ranks, draws = equal_ranks(layers.blocks, 3), 3000
    total = torch.zeros(len(train), len(train), dtype=torch.float64)
    for stream in range(draws):
        project = FactoredProjection.random(layers.blocks, ranks, seed=5, stream=stream, dtype=torch.float64)
        phi = project(factors)
        total += phi @ phi.T / draws
    true = rows @ rows.T
    assert float((total - true).norm() / true.norm()) < 0.05


def test_ranks_fill_the_dimensions_that_are_asked_for():
    _, _, _, layers, _ = kinds("mlp")  # (5, 7), (4, 6), (3, 5) with biases
    for k in (3, 12, 50, 74, 1000):
        ranks = ranks_within(layers.blocks, k)
        project = FactoredProjection.random(layers.blocks, ranks, seed=0, stream=0, dtype=torch.float64)
        larger = [(out + 1, inner + 1) for out, inner in ranks]
        more = FactoredProjection.random(layers.blocks, larger, seed=0, stream=0, dtype=torch.float64)
        assert project.k <= k < more.k or project.k == layers.model.p
    with pytest.raises(ConfigError, match="3 layers are projected to a dimension each at least, found project_dim 2"):
        ranks_within(layers.blocks, 2)


def test_features_larger_than_memory_are_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin", models=1)
    with pytest.raises(ConfigError, match="expected a smaller rank or a larger memory_gb"):
        Logra(memory_gb=1e-6).attribute(evidence)


def test_an_example_that_weighs_nothing_gets_nothing(toy, evidence_of):
    weights = torch.ones(24, dtype=torch.float64)
    weights[3] = 0
    evidence = evidence_of(toy("classification", hidden=4, recipe=RECIPE, weights=weights), "margin")
    values = Logra(rank=2).attribute(evidence).values
    assert (values[3] == 0).all()
    assert (values[4] != 0).all()


def test_the_leading_eigenvectors_are_those_of_the_largest_eigenvalues():
    task, model, train, _ = setting("mlp")
    (layers,) = Layers.of(model, [(task.losses, train)])
    source = LossGradients(task, train)
    curvature = Fit(layers, source, 2**24).kfac()
    project = leading(curvature, equal_ranks(layers.blocks, 2))
    (factors,) = source.batches(layers, len(train))
    for factor, (out, inner) in zip(factors, project.sides, strict=True):
        for side, values in ((out, factor.outputs), (inner, factor.inputs)):
            moment = values.flatten(0, 1).T @ values.flatten(0, 1)
            captured = (side.matrix.T @ moment @ side.matrix).diagonal().sum()
            torch.testing.assert_close(captured, torch.linalg.eigvalsh(moment)[-2:].sum())
