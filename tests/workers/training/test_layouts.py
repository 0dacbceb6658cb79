import copy

import pytest
import torch
from torch import nn

from workers.training.layouts import pool_before_relu, to_channels_last


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )  # fmt: skip


def test_pooling_first_changes_neither_values_nor_gradients():
    plain, x = network().double(), torch.randn(5, 2, 8, 8, dtype=torch.float64)
    x[0] = -x[0].abs()
    swapped = pool_before_relu(copy.deepcopy(plain))
    assert [type(part) for part in swapped[:3]] == [nn.Conv2d, nn.MaxPool2d, nn.ReLU]
    assert list(swapped.state_dict()) == list(plain.state_dict())
    for module in (plain, swapped):
        module(x).square().sum().backward()
    torch.testing.assert_close(swapped(x), plain(x), rtol=0, atol=0)
    for a, b in zip(swapped.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["hook", "indices"])
def test_what_would_be_noticed_is_left_alone(kind):
    pool = nn.MaxPool2d(2, return_indices=kind == "indices")
    module = nn.Sequential(nn.ReLU(), pool)
    if kind == "hook":
        module[0].register_forward_hook(lambda *_: None)
    assert pool_before_relu(module)[1] is pool


def test_channels_last_is_the_same_but_for_rounding():
    plain, x = network(), torch.randn(5, 2, 8, 8)
    other = copy.deepcopy(plain)
    images = to_channels_last(other, x)
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(other(images), plain(x), rtol=1e-5, atol=1e-5)
    tokens = torch.zeros(3, 2, dtype=torch.int64)
    assert to_channels_last(nn.Linear(2, 2), tokens) is tokens
