"""Operators that are held, and what is made of operators, against matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.curvature.blocks import BlockDiagonal
from estimators.curvature.dense import Dense
from estimators.curvature.diagonal import Diagonal
from estimators.curvature.operator import Operator
from workers.errors import ConfigError


def matrix(seed, p=7, rank=7):
    factor = np.random.default_rng(seed).normal(size=(rank, p))
    return torch.from_numpy(factor.T @ factor / rank)


class Products(Operator):
    """Knows products alone."""

    def __init__(self, inside):
        self.inside, self.p, self.dtype = inside, len(inside), inside.dtype

    def product(self, rows):
        return rows @ self.inside


def held(operator, expected):
    np.testing.assert_allclose(operator.dense(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(operator.diagonal(), expected.diagonal(), rtol=1e-12, atol=1e-12)
    assert operator.trace() == pytest.approx(float(expected.trace()), rel=1e-12)
    vectors = torch.randn(3, len(expected), dtype=torch.float64)
    np.testing.assert_allclose(operator.product(vectors), vectors @ expected, rtol=1e-12, atol=1e-12)
    at = torch.tensor([4, 0, 5])
    np.testing.assert_allclose(operator.submatrices([at])[0], expected[at[:, None], at], rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), factor=st.floats(-3, 3), damping=st.floats(0, 3))
def test_sums_multiples_and_damping_are_those_of_matrices(seed, factor, damping):
    a, b = matrix(seed), matrix(seed + 1)
    diagonal = torch.linspace(0, 1, 7, dtype=torch.float64)
    held(Dense(a), a)
    held(Products(a), a)
    held(Diagonal(diagonal), torch.diag(diagonal))
    held(BlockDiagonal(Dense(a), [torch.arange(7)]), a)
    identity = torch.eye(7, dtype=torch.float64)
    made = (factor * (Dense(a) + Products(b)) + Diagonal(diagonal)).damped(damping)
    held(made, factor * (a + b) + torch.diag(diagonal) + damping * identity)


def test_what_damping_adds_stays_out_of_what_is_damped():
    operator = Dense(a := matrix(0))
    operator.damped(5.0).dense()
    assert torch.equal(operator.dense(), a)


def invertible():
    a = matrix(3)
    cut = torch.zeros_like(a)
    places = [torch.tensor([6, 2]), torch.tensor([0, 1, 3, 4, 5])]
    for at in places:
        cut[at[:, None], at] = a[at[:, None], at]
    values = torch.linspace(0, 2, 7, dtype=torch.float64)
    return [
        (Dense(a), a),
        (Diagonal(values), torch.diag(values)),
        (BlockDiagonal(Products(a), places), cut),
    ]


@pytest.mark.parametrize("place", range(3))
def test_inverses_and_roots_are_those_of_the_matrix(place):
    operator, expected = invertible()[place]
    vectors = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    inverse = torch.linalg.inv(expected + 0.1 * torch.eye(7, dtype=torch.float64))
    np.testing.assert_allclose(operator.inverse(0.1)(vectors), vectors @ inverse, rtol=1e-8)
    root = operator.root()
    np.testing.assert_allclose(root(root(vectors)), vectors @ expected, rtol=1e-10, atol=1e-12)
    assert float((root(vectors) * vectors).sum()) > 0  # the positive one


@pytest.mark.parametrize("place", range(3))
def test_what_is_not_positive_has_no_inverse_and_no_root(place):
    operator, _ = invertible()[place]
    with pytest.raises(ConfigError, match="with damping -9 is not positive"):
        operator.inverse(-9.0)
    below = [
        Dense(-matrix(3)),
        Diagonal(torch.tensor([1.0, -1.0])),
        BlockDiagonal(Dense(-matrix(3)), [torch.arange(7)]),
    ]
    with pytest.raises(ConfigError, match="expected none below 0"):
        below[place].root()


def test_a_root_forgives_rounding():
    low = matrix(1, rank=2)
    root = Dense(low).root()
    np.testing.assert_allclose(root(root(torch.eye(7, dtype=torch.float64))), low, atol=1e-7)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"expected a square matrix, found shape \(2, 3\)"):
        Dense(torch.ones(2, 3))
    with pytest.raises(ValueError, match="differ by 1 from their mirror"):
        Dense(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"expected the diagonal as a vector, found shape \(1, 2\)"):
        Diagonal(torch.ones(1, 2))
    with pytest.raises(ValueError, match="have one p, found 7 and 2"):
        Dense(matrix(0)) + Diagonal(torch.ones(2))
    with pytest.raises(ValueError, match="have one dtype"):
        Dense(matrix(0)) + Diagonal(torch.ones(7))


def test_the_trace_is_estimated_from_products():
    a = matrix(0)
    assert Products(a).estimated_trace(4000, seed=0) == pytest.approx(float(a.trace()), rel=0.05)
    assert Products(a).estimated_trace(8, seed=1) == Products(a).estimated_trace(8, seed=1)
