"""Directions against plain divisions, and where those would fail."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from estimators.gradients.directions import layers, normalized
from estimators.gradients.functional_model import Model
from workers.runs import Checkpoint


def test_every_part_has_length_one():
    rows = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[2, 3:] = 0
    parts = [slice(0, 3), slice(3, 7)]
    found = normalized(rows.clone(), parts)
    lengths = torch.stack([found[:, part].norm(dim=1) for part in parts], 1)
    expected = torch.ones(5, 2, dtype=torch.float64)
    expected[2, 1] = 0
    torch.testing.assert_close(lengths, expected)
    torch.testing.assert_close(found[0, :3], rows[0, :3] / rows[0, :3].norm())


@given(st.integers(-37, 37))
def test_the_length_of_a_gradient_does_not_matter_however_small(exponent):
    row = torch.tensor([[3.0, -4.0]]) * 10.0**exponent  # in float32 its squares vanish, or are infinite
    np.testing.assert_allclose(normalized(row, [slice(0, 2)]), [[0.6, -0.8]], rtol=1e-5)


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.body = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        self.head = nn.Linear(2, 1, bias=False)

    def forward(self, inputs):
        return self.head(self.body(inputs) * self.scale)


def test_a_layer_is_the_parameters_of_one_module(toy):
    task = toy("regression")
    task.module = Nested
    model = Model(task, Checkpoint(1, 1, 0.1, Nested().double().state_dict()), torch.float64)
    assert layers(model) == [slice(0, 2), slice(2, 10), slice(10, 14), slice(14, 16)]
    assert layers(Model(task, Checkpoint(1, 1, 0.1, Nested().state_dict()), torch.float64, ("head.*",))) == [
        slice(0, 2)
    ]
