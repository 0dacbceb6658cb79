import pytest
import torch

from estimators.gradients.projection import BLOCK, Projection

P, K = 2 * BLOCK + 100, 64


def projection(kind="rademacher", seed=5, stream=0, budget=2**30, k=K):
    return Projection(P, k, seed, stream, torch.float64, budget, kind)


@pytest.mark.parametrize("kind", ["rademacher", "normal"])
def test_it_is_a_function_of_seed_and_stream_alone(kind):
    g = torch.randn(3, P, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first = projection(kind)(g)
    assert first.shape == (3, K)
    assert torch.equal(projection(kind)(g), first)
    assert torch.equal(projection(kind, budget=0)(g), first)
    assert not torch.allclose(projection(kind, seed=6)(g), first)
    assert not torch.allclose(projection(kind, stream=1)(g), first)


@pytest.mark.parametrize("kind", ["rademacher", "normal"])
def test_it_is_linear_with_independent_entries_of_variance_1_over_k(kind):
    matrix = projection(kind)(torch.eye(P, dtype=torch.float64))
    g = torch.randn(2, P, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(projection(kind)(g), g @ matrix)
    assert abs(float(matrix.mean())) < 4 / (P * K * K) ** 0.5
    assert abs(float(matrix.square().mean()) * K - 1) < 0.02
    gram = matrix.T @ matrix * (K / P) - torch.eye(K, dtype=torch.float64)
    assert float(gram.abs().max()) < 6 / P**0.5


@pytest.mark.parametrize("kind", ["rademacher", "normal"])
def test_inner_products_are_unbiased(kind):
    g, h = torch.randn(2, 1, P, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / P**0.5
    h = h + g
    estimates = torch.stack([(projection(kind, stream=s)(g) * projection(kind, stream=s)(h)).sum() for s in range(60)])
    standard_error = float(estimates.std()) / len(estimates) ** 0.5
    assert abs(float(estimates.mean()) - float((g * h).sum())) < 4 * standard_error
    # The variance of one is (|g|^2 |h|^2 + <g, h>^2) / k, up to a term of order 1/p for signs.
    assert float(estimates.std()) < 1.5 * float(2 * g.square().sum() * h.square().sum() / K) ** 0.5
