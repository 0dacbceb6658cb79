"""GraSS's projections: what they do as matrices, and the mean and variance of inner products, which are known exactly."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.gradients.factored_projection import equal_ranks
from estimators.gradients.factored_sparse_projection import FactoredSparseProjection
from estimators.gradients.layers import Layers
from estimators.gradients.per_example import gradients
from estimators.gradients.sparse_projection import SparseProjection
from tests.estimators.exact import sparse_matrices
from tests.estimators.modules import CASES, setting

P, K = 300, 16


def projection(seed=5, stream=0, p=P, k=K, kept=None, block=0):
    return SparseProjection(p, k, seed, stream, torch.float64, kept, block)


def vectors(count, p=P, seed=0):
    return torch.randn(count, p, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_it_is_a_function_of_seed_stream_and_block_alone():
    g = vectors(3)
    first = projection()(g)
    assert first.shape == (3, K)
    assert torch.equal(projection()(g), first)
    for other in ({"seed": 6}, {"stream": 1}, {"block": 1}):
        assert not torch.allclose(projection(**other)(g), first)


@pytest.mark.parametrize(("kept", "left"), [(None, 4 * K), (100, 100), (P, P), (5 * P, P)])
def test_it_keeps_so_many_coordinates_and_gives_each_one_sign(kept, left):
    matrix = projection(kept=kept).matrix()
    g = vectors(2)
    torch.testing.assert_close(projection(kept=kept)(g), g @ matrix)
    rows = matrix[matrix.abs().sum(1) > 0]
    assert len(rows) == left
    assert ((rows != 0).sum(1) == 1).all()
    torch.testing.assert_close(rows.abs().sum(1), torch.full((left,), math.sqrt(P / left), dtype=torch.float64))
    assert len(set(rows.sum(1).tolist())) == 2, "both signs are drawn"


def variance(g, h, k, kept):
    """Return the variance of <gP, hP> over masks, signs and places, by its two stages."""
    p, products = len(g), g * h
    across = (
        g.square().sum() * h.square().sum() - products.square().sum() + products.sum() ** 2 - products.square().sum()
    )
    pairs = (
        (p / kept) ** 2 * kept * (kept - 1) / (p * (p - 1))
    )  # how often two coordinates are both kept, by their factors
    return pairs * across / k + (p / kept) ** 2 * kept * (1 - kept / p) * products.var()


@pytest.mark.parametrize("kept", [None, P])
def test_inner_products_have_their_mean_and_variance(kept):
    g, h = vectors(2, seed=1)
    h, draws = h + g, 4000
    made = [projection(stream=s, kept=kept) for s in range(draws)]
    found = torch.stack([one(g[None])[0] @ one(h[None])[0] for one in made])
    wanted = float(variance(g, h, K, 4 * K if kept is None else P))
    assert abs(float(found.mean()) - float(g @ h)) < 4 * math.sqrt(wanted / draws)
    assert float(found.var()) == pytest.approx(wanted, rel=0.15)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), k=st.sampled_from([64, 256, 1024]))
def test_lengths_and_differences_are_kept_up_to_the_distortion_of_johnson_and_lindenstrauss(seed, k):
    """Of vectors whose mass is spread: |gP|^2 / |g|^2 is 1 within 6 standard deviations of about sqrt((2 + 1 / 2) / k)."""
    points = vectors(4, p=2000, seed=7)
    pairs = torch.cat([points, points[:1] - points[1:]])
    projected = projection(seed=seed, p=2000, k=k)(pairs)
    distortion = projected.square().sum(1) / pairs.square().sum(1) - 1
    deviation = max(float(variance(g, g, k, min(2000, 4 * k))) / float(g @ g) ** 2 for g in pairs) ** 0.5
    assert deviation < math.sqrt(3 / k)
    assert float(distortion.abs().max()) < 6 * deviation


@pytest.mark.parametrize("rank", [1, 2, 100])
@pytest.mark.parametrize("name", CASES)
def test_layers_are_projected_as_the_explicit_matrix_does(name, rank):
    task, model, train, _ = setting(name)
    (layers,) = Layers.of(model, [(task.losses, train)])
    ranks = equal_ranks(layers.blocks, rank)
    project = FactoredSparseProjection.random(layers.blocks, ranks, seed=1, stream=0, dtype=torch.float64)
    found = project(layers.factors(train))
    wanted = gradients(model, task.losses, train, 2**30) @ torch.cat(sparse_matrices(project, model), 1)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    dimensions = [
        math.prod(min(k, size) for k, size in zip(pair, block.shape, strict=True))
        for pair, block in zip(ranks, layers.blocks, strict=True)
    ]
    assert list(project.sizes) == dimensions
    for sides, pair, block in zip(project.masks.sides, ranks, layers.blocks, strict=True):
        blowup = (1, 4) if block.form == "formed" else (2, 2)
        if math.prod(block.shape) > math.prod(pair):
            kept = [min(times * k, size) for times, k, size in zip(blowup, pair, block.shape, strict=True)]
            assert [len(side.of(torch.eye(size))[0]) for side, size in zip(sides, block.shape, strict=True)] == kept
    assert found.shape[1] == project.k


def test_layers_keep_inner_products_in_expectation():
    task, model, train, _ = setting("mlp")
    (layers,) = Layers.of(model, [(task.losses, train)])
    factors, rows = layers.factors(train), gradients(model, task.losses, train, 2**30)
    ranks, draws = equal_ranks(layers.blocks, 2), 6000
    total = torch.zeros(len(train), len(train), dtype=torch.float64)
    for stream in range(draws):
        project = FactoredSparseProjection.random(layers.blocks, ranks, seed=5, stream=stream, dtype=torch.float64)
        phi = project(factors)
        total += phi @ phi.T / draws
    true = rows @ rows.T
    assert float((total - true).norm() / true.norm()) < 0.05
