"""Every curvature of a model against its definition by plain autograd, on four structures: dense, products, diagonal, trace."""

import numpy as np
import pytest
import torch

from estimators.curvature.blocks import BlockDiagonal, layer_blocks
from estimators.curvature.fisher import EmpiricalFisher, SampledFisher
from estimators.curvature.gauss_newton import GaussNewton
from estimators.curvature.hessian import Hessian
from estimators.curvature.pseudo_gradients import PseudoGradients
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from workers.errors import ConfigError
from workers.runs import Checkpoint

BUDGET = 2**20
CLOSE = 1e-10


def operator(kind, case, budget=BUDGET):
    if kind == "hessian":
        return Hessian(case.model, case.task, case.train)
    kinds = {"gauss_newton": GaussNewton, "empirical_fisher": EmpiricalFisher}
    return kinds[kind](case.model, case.task, case.train, budget)


def rows(p, r=3):
    return torch.randn(r, p, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["gauss_newton", "empirical_fisher", "hessian"])
def test_it_is_its_definition(case, relative, kind):
    expected, curvature = case.curvature(kind), operator(kind, case)
    assert (curvature.p, curvature.dtype, curvature.device.type) == (case.model.p, torch.float64, "cpu")
    dense = curvature.dense()
    assert relative(dense, expected) < CLOSE
    assert torch.equal(dense, dense.T)
    vectors = rows(case.model.p)
    assert relative(curvature.product(vectors), vectors @ expected) < CLOSE
    if kind != "hessian":  # its diagonal is that of its matrix, column by column once more
        assert relative(curvature.diagonal(), expected.diagonal()) < CLOSE
        assert curvature.trace() == pytest.approx(float(expected.trace()), rel=CLOSE)


@pytest.mark.parametrize("kind", ["gauss_newton", "empirical_fisher"])
def test_no_budget_changes_it(case, relative, kind):
    assert relative(operator(kind, case, budget=1).dense(), operator(kind, case).dense()) < CLOSE


def test_the_hessian_is_no_gauss_newton_matrix_here(case, relative):
    """Or the two tests would be one."""
    assert relative(case.curvature("hessian"), case.curvature("gauss_newton")) > 0.1


def test_more_than_one_batch_of_examples_is_summed(case, relative, monkeypatch):
    for kind, module in (("hessian", "hessian"), ("gauss_newton", "gram")):
        expected, vectors = case.curvature(kind), rows(case.model.p)
        monkeypatch.setattr(f"estimators.curvature.{module}.BATCH", 2)
        assert relative(operator(kind, case).product(vectors), vectors @ expected) < CLOSE


def test_the_sampled_fisher_is_the_gauss_newton_matrix_in_the_mean(case):
    """The mean over many draws lies within five of its standard errors; its own product is its matrix's."""
    expected, draws = case.curvature("gauss_newton"), []
    for seed in range(40):
        sampled = SampledFisher(case.model, case.task, case.train, BUDGET, samples=2, seed=seed)
        draws.append(sampled.dense())
    all_draws = torch.stack(draws)
    vectors = rows(case.model.p)
    np.testing.assert_allclose(sampled.product(vectors), vectors @ draws[-1], rtol=1e-9, atol=1e-11)
    direction = vectors[0] / vectors[0].norm()
    for found, truth in (
        (all_draws.diagonal(dim1=1, dim2=2).sum(1), expected.trace()),
        (all_draws @ direction @ direction, direction @ expected @ direction),
        ((all_draws @ vectors[1]) @ vectors[2], vectors[1] @ expected @ vectors[2]),
    ):
        error = float(found.std()) / len(draws) ** 0.5
        assert abs(float(found.mean() - truth)) < 5 * error
        assert error > 0


def test_what_is_sampled_depends_on_the_seed_alone(case):
    def drawn(budget, seed):
        return SampledFisher(case.model, case.task, case.train, budget, samples=3, seed=seed).dense()

    np.testing.assert_allclose(drawn(1, 4), drawn(BUDGET, 4), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(drawn(BUDGET, 4), drawn(BUDGET, 5))


def test_blocks_of_examples_have_draws_of_their_own(case, monkeypatch):
    monkeypatch.setattr("estimators.curvature.gram.BATCH", 4)
    monkeypatch.setattr("estimators.curvature.pseudo_gradients.DRAWN_TOGETHER", 2)
    sampled = SampledFisher(case.model, case.task, case.train, BUDGET, samples=20, seed=0)
    assert not torch.equal(sampled._drawn(slice(0, 2)), sampled._drawn(slice(2, 4)))
    vectors = rows(case.model.p)
    np.testing.assert_allclose(sampled.product(vectors), vectors @ sampled.dense(), rtol=1e-9, atol=1e-11)


def test_the_sampled_fisher_is_made_of_the_draws_that_kronecker_factors_are_made_of(case, relative):
    source = PseudoGradients(case.model, case.task, case.train, seed=3, samples=4)
    (layers,) = Layers.of(case.model, [(source.objective, source.few())])
    drawn = torch.cat([layers.flat(factors) for factors in source.batches(layers, 3)])
    sampled = SampledFisher(case.model, case.task, case.train, BUDGET, samples=4, seed=3)
    assert relative(sampled.dense(), drawn.T @ drawn / len(drawn)) < CLOSE


def test_more_draws_come_closer(case, relative):
    def off(samples):
        made = (SampledFisher(case.model, case.task, case.train, BUDGET, samples, seed) for seed in range(4))
        return np.mean([relative(one.dense(), case.curvature("gauss_newton")) for one in made])

    assert off(64) == pytest.approx(off(4) / 4, rel=0.5)


def test_no_draws_are_refused(case):
    with pytest.raises(ConfigError, match="samples: expected at least 1 draw an example, found 0"):
        SampledFisher(case.model, case.task, case.train, BUDGET, samples=0)


@pytest.mark.parametrize("kind", ["gauss_newton", "hessian"])
def test_block_by_layer_it_is_cut(case, relative, kind):
    expected = case.curvature(kind)
    places = layer_blocks(case.model)
    cut = torch.zeros_like(expected)
    for at in places.values():
        cut[at[:, None], at] = expected[at[:, None], at]
    blocks = BlockDiagonal(operator(kind, case), list(places.values()))
    assert relative(blocks.dense(), cut) < CLOSE
    vectors = rows(case.model.p)
    assert relative(blocks.product(vectors), vectors @ cut) < CLOSE
    assert relative(blocks.diagonal(), expected.diagonal()) < CLOSE
    damping = 1 - float(torch.linalg.eigvalsh(cut)[0].clamp(max=0))
    inverse = torch.linalg.inv(cut + damping * torch.eye(len(cut), dtype=torch.float64))
    assert relative(blocks.inverse(damping)(vectors), vectors @ inverse) < 1e-8


def test_layers_are_modules_and_patterns_are_held_in_order(case):
    layers = layer_blocks(case.model)
    assert list(layers) == list(dict.fromkeys(name.rpartition(".")[0] for name in case.model.parameters))
    assert torch.equal(torch.cat(list(layers.values())).sort().values, torch.arange(case.model.p))
    names = list(case.model.parameters)
    size = case.model.parameters[names[-1]].numel()
    two = layer_blocks(case.model, [names[-1], "*"])
    assert two[names[-1]].tolist() == list(range(case.model.p - size, case.model.p))
    assert len(two["*"]) == case.model.p - size


def test_blocks_that_are_no_partition_are_refused(case):
    first = next(iter(case.model.parameters))
    with pytest.raises(ConfigError, match="blocks: expected every parameter in a block, found none for"):
        layer_blocks(case.model, [first])
    with pytest.raises(ConfigError, match="blocks: pattern 'nothing' matches no parameter"):
        layer_blocks(case.model, ["nothing", "*"])
    with pytest.raises(ConfigError, match=r"blocks: pattern '\*' matches only parameters of the patterns before it"):
        layer_blocks(case.model, ["?*", "*"])
    with pytest.raises(ValueError, match="in one block, found 1 places"):
        BlockDiagonal(operator("gauss_newton", case), [torch.tensor([0])])


def test_in_float32_it_is_the_same_to_rounding(case, relative):
    model = Model(case.task, Checkpoint(1, 1, 0.1, case.module.state_dict()), torch.float32)
    train = Examples.training(case.task, torch.float32)
    for kind, made in (
        ("gauss_newton", GaussNewton(model, case.task, train, BUDGET)),
        ("empirical_fisher", EmpiricalFisher(model, case.task, train, BUDGET)),
        ("hessian", Hessian(model, case.task, train)),
    ):
        assert made.dense().dtype == torch.float64
        assert relative(made.dense(), case.curvature(kind)) < 1e-4
        assert made.product(torch.ones(1, model.p)).dtype == torch.float32
