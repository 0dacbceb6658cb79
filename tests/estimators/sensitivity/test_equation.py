"""The equation on problems that are solved in closed form: by matrices in float64, without any of our operators."""

import pytest
import torch

from estimators.sensitivity.equation import (
    Sensitivities,
    output_deviations,
    parameter_deviations,
    prediction_variance,
    without_itself,
)
from workers.errors import ConfigError


@pytest.fixture(scope="module")
def ridge():
    """Least squares with a ridge: X (12, 3), y, the penalty, and its solution by the normal equations."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=rng, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + torch.randn(12, generator=rng, dtype=torch.float64)
    return x, y, 0.7


def solved(x, y, penalty):
    return torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def without(ridge, gone):
    x, y, penalty = ridge
    left = [i for i in range(len(x)) if i not in gone]
    return solved(x[left], y[left], penalty)


def covariance(ridge):
    x, _, penalty = ridge
    return torch.linalg.inv(x.T @ x + penalty * torch.eye(3, dtype=torch.float64))


def at_optimum(ridge):
    x, y, _ = ridge
    outputs = (x @ solved(*ridge)).unsqueeze(1)
    return outputs, outputs - y.unsqueeze(1), x.unsqueeze(1)


def test_linear_regression_recovers_leave_one_out_exactly(ridge):
    x = ridge[0]
    outputs, error, jacobians = at_optimum(ridge)
    variance = prediction_variance(jacobians, lambda rows: rows @ covariance(ridge))
    exact = Sensitivities(outputs, error, without_itself(variance, torch.ones(12, 1, 1, dtype=torch.float64)))
    wanted = torch.stack([x[i] @ without(ridge, [i]) for i in range(12)])
    torch.testing.assert_close(exact.left_out_outputs[:, 0], wanted)
    moved = torch.stack([without(ridge, [i]) for i in range(12)]) - solved(*ridge)
    # S without i, which is what an exact step takes: here by inverting it, example by example
    precision = torch.linalg.inv(covariance(ridge))
    for i in range(12):
        own = torch.linalg.inv(precision - torch.outer(x[i], x[i]))
        made = parameter_deviations(x[i : i + 1] * error[i], lambda rows, own=own: rows @ own)
        torch.testing.assert_close(made[0], moved[i])


def test_the_plain_variance_gives_the_influence_function(ridge):
    x, y, penalty = ridge
    outputs, error, jacobians = at_optimum(ridge)
    variance = prediction_variance(jacobians, lambda rows: rows @ covariance(ridge))
    made = Sensitivities(outputs, error, variance)

    def fitted(i, weight):
        w = torch.ones(12, dtype=torch.float64)
        w[i] = weight
        scale = w.sqrt()
        return x[i] @ solved(x * scale[:, None], y * scale, penalty)

    step = 1e-5
    slopes = torch.stack([(fitted(i, 1 - step) - fitted(i, 1 + step)) / (2 * step) for i in range(12)])
    torch.testing.assert_close(made.deviations[:, 0], slopes, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(made.magnitudes, slopes.abs(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(made.self_influence, (error[:, 0] * slopes), rtol=1e-6, atol=1e-9)
    assert bool((made.self_influence >= 0).all())


def test_groups_are_sums(ridge):
    x, y, penalty = ridge
    _, error, jacobians = at_optimum(ridge)
    groups = torch.tensor([0, 1, 2] * 4)
    moved = parameter_deviations(x * error, lambda rows: rows @ covariance(ridge), groups)

    def fitted(group, weight):
        scale = (1 + (weight - 1) * (groups == group).double()).sqrt()
        return x @ solved(x * scale[:, None], y * scale, penalty)

    step = 1e-5
    for group in range(3):
        slopes = (fitted(group, 1 - step) - fitted(group, 1 + step)) / (2 * step)
        torch.testing.assert_close(output_deviations(jacobians, moved)[group, :, 0], slopes, rtol=1e-6, atol=1e-9)


def test_an_example_that_alone_holds_a_direction_is_refused():
    ones = torch.ones(1, 1, 1, dtype=torch.float64)
    with pytest.raises(ConfigError, match="expected a larger damping"):
        without_itself(ones, ones)
