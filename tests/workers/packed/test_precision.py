"""Products in bfloat16, and float32 in every way of training: what they may change, and what not."""

import numpy as np
import pytest
import torch
from torch import nn

from workers import Classification, Queries, Recipe, Run
from workers.errors import ConfigError
from workers.packs import train_pack
from workers.training.precision import forward

CPU = torch.device("cpu")


class Blobs(Classification):
    """Three overlapping classes in eight dimensions."""

    def __init__(self, **recipe):
        generator = torch.Generator().manual_seed(3)
        self.recipe = Recipe(**{"lr": 0.1, "momentum": 0.9, "batch_size": 16, "epochs": 6, **recipe})
        targets = torch.randint(3, (400,), generator=generator)
        inputs = torch.randn(400, 8, generator=generator)
        inputs[torch.arange(400), targets] += 2
        self.train_inputs, self.train_targets = inputs[:300], targets[:300]
        self.query_inputs, self.query_targets = inputs[300:], targets[300:]

    def module(self):
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def halves(count, epochs=()):
    rng = np.random.default_rng(8)
    return [Run(row, np.sort(rng.permutation(300)[:150]), row, epochs) for row in range(count)]


def margins(task, runs, **options):
    outcomes = train_pack(task, runs, ["margin"], Queries(), **options)
    return np.array([outcome.outputs["margin"] for outcome in outcomes], dtype=np.float64)


def test_bf16_rounds_the_factors_of_a_product_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    layer, x = nn.Linear(64, 10), torch.randn(5, 64, generator=generator)
    found = forward(Recipe(precision="bf16"), CPU, layer, x)
    assert found.dtype == torch.float32
    assert layer.weight.dtype == torch.float32
    rounded = [value.detach().bfloat16().double() for value in (x, layer.weight, layer.bias)]
    exact = rounded[0] @ rounded[1].T + rounded[2]
    assert (found.double() - exact).abs().max() <= exact.abs().max() * 2**-8  # the result is rounded once
    assert not torch.equal(found, layer(x))


def test_other_precisions_are_left_alone():
    layer, x = nn.Linear(4, 2), torch.randn(3, 4)
    assert torch.equal(forward(Recipe(), CPU, layer, x), layer(x))


@pytest.mark.parametrize("options", [{"method": "alone"}, {"method": "stacked", "width": 4}])
def test_bf16_keeps_parameters_in_float32_and_learns(options):
    runs = halves(4, (0, 6))
    for outcome in train_pack(Blobs(precision="bf16"), runs, ["correct"], Queries(), **options):
        assert outcome.outputs["correct"].mean() > 0.75
        first, last = outcome.checkpoints
        assert {value.dtype for value in last.state.values()} == {torch.float32}
        # A bfloat16 parameter would have its last sixteen bits zero.
        assert any((value.view(torch.int32) & 0xFFFF).any() for value in last.state.values())
        assert not torch.equal(first.state["0.weight"], last.state["0.weight"])


def test_bf16_differs_from_float32_by_its_rounding():
    runs = halves(4)
    single, half = (margins(Blobs(precision=p, epochs=1), runs, method="alone") for p in ("float32", "bf16"))
    assert 0 < np.abs(single - half).max() < 0.1


@pytest.mark.parametrize("architecture", ["relu", "convolution", "batch_norm", "tokens"])
def test_bf16_packed_and_alone_agree_but_for_rounding(zoo, unequal_runs, architecture):
    task = zoo(Recipe(lr=0.05, epochs=2, batch_size=8, precision="bf16"), architecture)
    runs = unequal_runs(())
    alone, packed = margins(task, runs, method="alone"), margins(task, runs, method="stacked", width=4)
    np.testing.assert_allclose(packed, alone, atol=0.05)


def test_the_resident_kernels_do_not_take_bf16():
    with pytest.raises(ConfigError, match="float32 or float64"):
        train_pack(Blobs(precision="bf16"), halves(1), ["margin"], Queries(), method="resident")
    assert np.isfinite(margins(Blobs(precision="bf16"), halves(2))).all()  # "auto" takes another way


@pytest.mark.parametrize("options", [{"method": "resident"}, {"method": "stacked", "width": 8}])
def test_float32_agrees_after_a_few_steps(options):
    runs = [Run(row, np.arange(row, row + 48), row) for row in range(8)]
    task = Blobs(epochs=1)
    np.testing.assert_allclose(
        margins(task, runs, **options), margins(task, runs, method="alone"), rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"method": "resident"}, {"method": "stacked", "width": 16}])
def test_float32_agrees_in_mean_outputs(options):
    """Paired by run, the mean difference from training alone is nothing but noise."""
    runs = halves(200)
    apart = (margins(Blobs(), runs, **options) - margins(Blobs(), runs, method="alone")).mean(axis=1)
    spread = apart.std(ddof=1)
    assert spread < 0.05 * margins(Blobs(), runs, **options).std(axis=0).mean()
    assert abs(apart.mean()) <= 4 * spread / np.sqrt(len(runs)) + 1e-6
