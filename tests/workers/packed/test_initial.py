"""Initial parameters drawn without building the module are those of the module built."""

import random

import pytest
import torch
from torch import nn

from workers.packed.initial import Initial
from workers.randomness.streams import build_module


class Scaled(nn.Module):
    """Initialized twice, the second time by a chain of operations in place."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.norm = nn.LayerNorm(5)
        self.second = nn.Linear(5, 3, bias=False)
        nn.init.xavier_normal_(self.first.weight)
        nn.init.zeros_(self.first.bias)
        self.second.weight.data.normal_().mul_(0.1).add_(1.0)


class Drawn(nn.Module):
    """A parameter that is made of a tensor drawn elsewhere."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3) / 2)


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.full((2,), 0.5))


class Deciding(nn.Module):
    """Draws again until it likes what it sees."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        while self.layer.weight[0, 0].item() < 0.2:
            nn.init.normal_(self.layer.weight)


class Sliced(nn.Module):
    """One row has its own scale."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        nn.init.normal_(self.layer.weight[0], std=3.0)


class Orthogonal(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)
        nn.init.orthogonal_(self.layer.weight)


class Elsewhere(nn.Module):
    """Takes its scale from Python's own generator, which no seed of a run reaches."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)
        self.layer.weight.data.mul_(random.random())


class Unlucky(nn.Module):
    """Raises at some seeds."""

    def __init__(self):
        super().__init__()
        if torch.rand(()).item() < 0.9:
            raise ArithmeticError("unlucky seed")
        self.layer = nn.Linear(3, 2)


def chain():
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Dropout(0.1), nn.Linear(30, 10))


REPLAYED = [chain, lambda: nn.Linear(7, 1), Scaled]
BUILT = [Drawn, Constant, Deciding, Sliced, Orthogonal]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factory", REPLAYED + BUILT)
@pytest.mark.parametrize("seed", [0, 5, 2**62])
def test_bits_are_those_of_the_module(factory, dtype, seed):
    initial = Initial(factory, dtype)
    for _ in range(2):
        drawn = initial.draw(seed)
        built = dict(build_module(factory, seed, dtype)[0].named_parameters())
        assert drawn.keys() == built.keys()
        for name, value in built.items():
            assert torch.equal(drawn[name].to(dtype), value)


@pytest.mark.parametrize("factory", REPLAYED)
def test_operations_in_place_are_repeated(factory):
    assert Initial(factory, torch.float32).replays


@pytest.mark.parametrize("factory", [*BUILT, Elsewhere])
def test_any_other_module_is_built(factory):
    assert not Initial(factory, torch.float32).replays


def test_what_building_raises_is_raised_for_the_run():
    initial = Initial(Unlucky, torch.float32)
    assert not initial.replays
    with pytest.raises(ArithmeticError, match="unlucky"):
        initial.draw(1)


def test_the_global_generator_is_left_alone():
    initial = Initial(chain, torch.float32)
    before = torch.get_rng_state()
    initial.draw(3)
    assert torch.equal(torch.get_rng_state(), before)
