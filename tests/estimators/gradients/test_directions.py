"""Directions against plain divisions, and where those would fail."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from estimators.gradients.directions import directions, directions_by_layer, normalized
from estimators.gradients.factors import Outer
from estimators.gradients.layers import Layers
from estimators.gradients.per_example import gradients
from tests.estimators.modules import CASES, setting


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


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("by_layer", [False, True])
def test_directions_of_factors_are_those_of_formed_gradients(name, by_layer):
    task, model, train, _ = setting(name)
    (layers,) = Layers.of(model, [(task.losses, train)])
    found = layers.flat((directions_by_layer if by_layer else directions)(layers.blocks, layers.factors(train)))
    rows = gradients(model, task.losses, train, 2**30)
    owners = [name.rpartition(".")[0] for name, value in model.parameters.items() for _ in range(value.numel())]
    wanted = torch.zeros_like(rows)
    for owner in dict.fromkeys(owners) if by_layer else [None]:
        of_owner = torch.tensor([owner is None or one == owner for one in owners])
        lengths = rows[:, of_owner].norm(dim=1, keepdim=True)
        wanted[:, of_owner] = rows[:, of_owner] / torch.where(lengths > 0, lengths, 1.0)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("exponent", [-30, 0, 25])
def test_the_length_of_a_factored_gradient_does_not_matter_either(exponent):
    factor = Outer(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[2.0]]]) * 10.0**exponent)
    (found,) = directions([], [factor])
    np.testing.assert_allclose(found.formed(), [[[0.6, 0.8]]], rtol=1e-5)
