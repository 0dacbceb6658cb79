"""Sensitivity as prediction error times prediction variance, for single examples and for groups: pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.curvature.operator import Rows
from workers.errors import ConfigError

FULL = 1 - 1e-9
"""A leverage from here on is 1 but for rounding: without the example the covariance has no inverse."""


@dataclass(frozen=True)
class Sensitivities:
    """What leaving out each of n examples does to its own c outputs, to first order.

    Nickl et al. 2023, "The Memory-Perturbation Equation", for a Gaussian posterior of covariance S: without example i the
    parameters move by S g_i, its outputs by v_i e_i, with e_i the gradient of its loss in the outputs (prediction error) and
    v_i = J_i S J_i^T their covariance under the posterior (prediction variance).

    >>> import torch
    >>> from estimators.sensitivity.equation import Sensitivities
    >>> one = Sensitivities(torch.tensor([[0.6]]), torch.tensor([[-0.5]]), torch.tensor([[[0.2]]]))
    >>> one.deviations.tolist(), one.magnitudes.tolist(), one.left_out_outputs.tolist()
    ([[-0.10000000149011612]], [0.10000000149011612], [[0.5]])
    """

    outputs: Tensor
    """f (n, c)."""
    error: Tensor
    """e (n, c), in units of the loss per unit of an output."""
    variance: Tensor
    """v (n, c, c), in squared units of the outputs per unit of the loss."""

    @property
    def deviations(self) -> Tensor:
        """v_i e_i (n, c): what is added to the outputs of example i when it is left out."""
        return (self.variance @ self.error.unsqueeze(2)).squeeze(2)

    @property
    def magnitudes(self) -> Tensor:
        """|v_i e_i| (n,): one number an example, in units of the outputs."""
        found: Tensor = self.deviations.norm(dim=1)
        return found

    @property
    def self_influence(self) -> Tensor:
        """e_i^T v_i e_i (n,): by how much the loss of example i rises to first order when it is left out; never negative."""
        return (self.error * self.deviations).sum(1)

    @property
    def left_out_outputs(self) -> Tensor:
        """f_i + v_i e_i (n, c): the outputs of example i by a model that was not trained on it."""
        return self.outputs + self.deviations


def prediction_variance(jacobians: Tensor, solve: Rows) -> Tensor:
    """Return J_i S J_i^T (n, c, c) from the outputs' Jacobians (n, c, p) and the map of rows v -> S v."""
    n, c, p = jacobians.shape
    found: Tensor = solve(jacobians.reshape(n * c, p)).reshape(n, c, p) @ jacobians.mT
    return found


def without_itself(variance: Tensor, curvature: Tensor) -> Tensor:
    """Return the prediction variances (n, c, c) of models that lack example i, v_i (I - H_i v_i)^-1.

    `curvature` H_i (n, c, c) is the Hessian of its loss in the outputs, in the same units as in the covariance that v_i is of.
    With them the equation is exact for squared errors (Sherman-Morrison), where v_i alone gives influence. Raises ConfigError
    where a leverage is 1.
    """
    leverage = curvature @ variance
    largest = float(torch.linalg.eigvals(leverage).real.amax())
    if largest >= FULL:
        raise ConfigError(
            f"without one example the covariance is not finite (leverage {largest:.6g}): expected a larger damping"
        )
    units = torch.eye(variance.shape[1], dtype=variance.dtype, device=variance.device)
    found: Tensor = torch.linalg.solve(units - leverage, variance, left=False)
    return found


def parameter_deviations(gradients: Tensor, solve: Rows, groups: Tensor | None = None) -> Tensor:
    """Return S times the sum of g_i over each group, (k, p): how the parameters move without it.

    `gradients` (n, p) are those of the examples' losses, `groups` (n,) int64 says which of 0 .. k - 1 each is in; None for
    every example by itself.
    """
    if groups is None:
        return solve(gradients)
    total = gradients.new_zeros(int(groups.max()) + 1, gradients.shape[1])
    return solve(total.index_add_(0, groups, gradients))


def output_deviations(jacobians: Tensor, moved: Tensor) -> Tensor:
    """Return how the outputs of m examples, with Jacobians (m, c, p), move with the parameters (k, p): (k, m, c)."""
    return torch.einsum("mcp,kp->kmc", jacobians, moved)
