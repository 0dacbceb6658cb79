"""Gradients in factors times a number a row and one a column, against the same on formed gradients."""

import pytest
import torch

from estimators.gradients.factors import EmbeddingRows, Formed, Outer
from estimators.gradients.sided_scale import SidedScale


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize(
    "factor",
    [
        Outer(normal(5, 3, 4), normal(5, 3, 6)),
        EmbeddingRows(torch.tensor([[0, 5, 5], [1, 2, 0]]), normal(2, 3, 4), 6),
        Formed(normal(5, 6, 4)),
    ],
    ids=["outer", "rows", "formed"],
)
def test_factors_are_multiplied_as_their_gradients_would_be(factor):
    scale = SidedScale(normal(6).abs(), normal(4).abs())
    found = scale.times(factor)
    assert type(found) is type(factor)
    torch.testing.assert_close(found.formed(), factor.formed() * scale.formed())


def test_the_inverse_root_of_a_product_is_exact_and_of_zeros_zero():
    out, inner = normal(6).square(), normal(4).square()
    out[2], inner[1] = 0, 0
    values = torch.outer(out, inner)
    found = SidedScale.inverse_root(values).formed()
    torch.testing.assert_close(found, torch.where(values > 0, values, 1.0) ** -0.25 * (values > 0))
    one_row = normal(1, 7).square()
    torch.testing.assert_close(SidedScale.inverse_root(one_row).formed(), one_row**-0.25)
    assert not SidedScale.inverse_root(torch.zeros(2, 3)).formed().any()


def test_no_other_product_has_a_smaller_divergence():
    values = normal(6, 4).square()
    product = SidedScale.inverse_root(values).formed() ** -4

    def divergence(other):
        return float((values * (values / other).log() - values + other).sum())

    for place in range(20):
        by = torch.outer(1 + 0.1 * normal(place + 1, 6)[0], 1 + 0.1 * normal(place + 2, 4)[0])
        assert divergence(product) <= divergence(product * by)
