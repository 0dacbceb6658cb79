from itertools import pairwise

import pytest
import torch
from torch import nn

from workers.packed.linear_chain import find_chain
from workers.randomness.streams import build_module


def chain_of(factory):
    return find_chain(*build_module(factory, 0, torch.float32))


def linear(*widths):
    return [nn.Linear(a, b) for a, b in pairwise(widths)]


class Functional(nn.Module):
    """A chain written with functions and methods."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.Linear(3, 1), nn.Linear(4, 3, bias=False)
        self.drop = nn.Dropout(0.25)

    def forward(self, x):
        return self.second(self.drop(torch.tanh(self.first(x.flatten(1))))).squeeze(-1)


def test_a_layer_by_itself_is_a_chain():
    chain = chain_of(lambda: nn.Linear(4, 2))
    assert [(layer.weight, layer.bias, layer.inputs, layer.outputs) for layer in chain.layers] == [
        ("weight", "bias", 4, 2)
    ]


def test_activations_and_dropouts_belong_to_the_layer_before():
    first, second, last = linear(4, 3, 3, 2)
    chain = chain_of(
        lambda: nn.Sequential(
            nn.Flatten(), first, nn.ReLU(), nn.Dropout(0.1), second, nn.Dropout(0.2), nn.Identity(), last
        )
    )
    assert [layer.weight for layer in chain.layers] == ["1.weight", "4.weight", "7.weight"]
    assert [layer.activation for layer in chain.layers] == ["relu", "identity", "identity"]
    assert [(layer.dropout, layer.p) for layer in chain.layers] == [(0, 0.1), (1, 0.2), (None, 0.0)]


def test_functions_are_followed():
    chain = chain_of(Functional)
    assert [(layer.weight, layer.bias) for layer in chain.layers] == [
        ("first.weight", None),
        ("second.weight", "second.bias"),
    ]
    assert (chain.layers[0].activation, chain.layers[0].p) == ("tanh", 0.25)
    assert chain.squeezed


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = linear(4, 4, 2)

    def forward(self, x):
        return self.second(x + self.first(x))


class Branch(Skip):
    def forward(self, x):
        return self.second(self.first(x)) if x.sum() > 0 else self.second(x)


class Spare(nn.Sequential):
    """Holds a parameter that its forward pass never uses."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.spare = nn.Parameter(torch.zeros(2))


def hooked():
    module = nn.Sequential(*linear(4, 2))
    module[0].register_forward_hook(lambda *_: None)
    return module


def frozen():
    module = nn.Sequential(*linear(4, 3, 2))
    module[0].requires_grad_(False)
    return module


def shared():
    first, second = linear(4, 4, 4)
    second.weight = first.weight
    return nn.Sequential(first, second)


@pytest.mark.parametrize(
    "factory",
    [
        Skip,
        Branch,
        hooked,
        frozen,
        shared,
        lambda: Spare(*linear(4, 2)),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU()),
        lambda: nn.Sequential(nn.Dropout(0.1), nn.Linear(4, 2)),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1), nn.ReLU(), nn.Linear(3, 2)),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Tanh(), nn.Linear(3, 2)),
        lambda: nn.Sequential(nn.Flatten(0), nn.Linear(4, 2)),
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)),
        nn.Identity,
    ],
)
def test_anything_else_is_no_chain(factory):
    assert chain_of(factory) is None
