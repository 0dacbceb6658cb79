import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers import measures

logits = st.integers(2, 6).flatmap(
    lambda c: st.lists(st.lists(st.floats(-8, 8), min_size=c, max_size=c), min_size=1, max_size=5)
)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@given(logits, st.integers(0, 100))
def test_classification_measures_are_functions_of_p(rows, seed):
    z = np.array(rows)
    y = np.random.default_rng(seed).integers(z.shape[1], size=len(z))
    p, rest = softmax(z)[np.arange(len(z)), y], softmax(z)
    rest[np.arange(len(z)), y] = 0
    outputs, targets = torch.tensor(z, dtype=torch.float64), torch.tensor(y)
    # 1 - p as the sum of the other classes: subtracting from 1 would lose the oracle its digits.
    np.testing.assert_allclose(measures.margin(outputs, targets), np.log(p / rest.sum(1)), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(measures.cross_entropy(outputs, targets), -np.log(p), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(measures.probability(outputs, targets), p, rtol=1e-9)
    others = np.where(np.arange(z.shape[1]) == y[:, None], -np.inf, z).max(1)
    np.testing.assert_allclose(measures.hard_margin(outputs, targets), z[np.arange(len(z)), y] - others)
    np.testing.assert_array_equal(measures.correct(outputs, targets), z.argmax(1) == y)


def test_margin_is_exact_where_p_rounds_to_one():
    outputs = torch.tensor([[100.0, 0.0, 0.0]])
    assert measures.margin(outputs, torch.tensor([0])).item() == pytest.approx(100 - np.log(2), rel=1e-6)
    assert measures.margin(outputs, torch.tensor([1])).item() == pytest.approx(-100, rel=1e-6)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_regression_measures_take_a_column_or_a_vector(shape):
    outputs, targets = torch.tensor([1.0, 2.0, -3.0, 0.5]), torch.tensor([0.0, 2.0, 1.0, 1.0])
    assert measures.squared_error(outputs.reshape(shape), targets).tolist() == [1.0, 0.0, 16.0, 0.25]
    assert measures.prediction(outputs.reshape(shape), targets).tolist() == outputs.tolist()


@pytest.mark.parametrize("name", ["margin", "hard_margin", "loss", "probability"])
def test_gradients_are_right_and_finite(name):
    outputs = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda z: measures.CLASSIFICATION[name](z, targets), outputs)
