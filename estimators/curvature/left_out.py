"""Leaving out one example in closed form, where the outputs are linear in the parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.errors import ConfigError

FULL = 1 - 1e-9
"""A leverage from here on is 1 but for rounding: without the example the matrix has no inverse."""


@dataclass(frozen=True)
class LeftOut:
    """What a Newton step says of the optimum of the mean loss of all examples but one, for models linear in p parameters.

    At the optimum of all n, of (1/n) sum of loss_j + R with a quadratic R, the objective of the others times (n - 1) has the
    slope - J_i^T a_i - rho, where a_i (c,) is the gradient of loss_i in the outputs, J_i (c, p) their Jacobian and rho the
    gradient of R; and the curvature B - J_i^T H_i J_i with B = sum of all J_j^T H_j J_j + (n - 1) R''. By Woodbury's formula the
    step from there is

        delta_i = s + B^-1 J_i^T (I - H_i K_i)^-1 (a_i + H_i J_i s),    s = B^-1 rho,    K_i = J_i B^-1 J_i^T.

    H_i K_i is the leverage: a number for one output, where (I - H_i K_i)^-1 = 1 / (1 - h_ii) (Pregibon 1981), c x c for
    several. Exact for squared errors, whose Newton step ends at the optimum.
    """

    factor: Tensor
    """Cholesky factor of B, (p, p)."""
    shrinking: Tensor
    """s (p,)."""

    @classmethod
    def of(cls, curvature: Tensor, penalty: float, pull: Tensor, n: int) -> LeftOut:
        """Prepare, from the sum of J_j^T H_j J_j (p, p), R'' = penalty I, and rho (p,).

        Raises ConfigError where the matrix is singular.
        """
        matrix = curvature.clone()
        matrix.diagonal().add_((n - 1) * penalty)
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info) != 0:
            raise ConfigError(
                f"alo: the curvature of the loss in {len(matrix)} parameters with a penalty and damping of {penalty:g} in all "
                "is singular: expected a larger penalty or damping"
            )
        return cls(factor, torch.cholesky_solve(pull[:, None], factor)[:, 0])

    def steps(self, jacobians: Tensor, slopes: Tensor, curvatures: Tensor) -> tuple[Tensor, Tensor]:
        """Return delta_i (b, p) and the leverages (b,), the largest eigenvalues of H_i K_i, of examples with
        J_i (b, c, p), a_i (b, c), H_i (b, c, c).

        Raises ConfigError for an example without which the optimum is not unique.
        """
        b, c, p = jacobians.shape
        solved = torch.cholesky_solve(jacobians.reshape(b * c, p).T, self.factor).T.reshape(b, c, p)
        leverage = curvatures @ (solved @ jacobians.mT)
        largest = torch.linalg.eigvals(leverage).real.amax(1)
        if bool((largest >= FULL).any()):
            raise ConfigError(
                f"alo: without one example the optimum is not unique (leverage {float(largest.max()):.6g}): "
                "expected a larger penalty or damping"
            )
        inside = slopes + (curvatures @ (jacobians @ self.shrinking)[:, :, None])[:, :, 0]
        units = torch.eye(c, dtype=leverage.dtype, device=leverage.device)
        weights = torch.linalg.solve(units - leverage, inside[:, :, None])
        return self.shrinking + (solved.mT @ weights)[:, :, 0], largest
