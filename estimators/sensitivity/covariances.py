"""Which covariance goes with which algorithm: the rows of the memory-perturbation equation's table.

Nickl et al. 2023 read every algorithm as a special case of the Bayesian learning rule, with a Gaussian posterior whose
precision is what the algorithm divides the gradient by. A sensitivity is then S g_i with

    Newton's method             S = (1/n) H^-1                    H the curvature of the mean loss, with its L2 term
    online Newton               S = (1/n) S_t^-1                  S_t = (1 - rho) S_(t-1) + rho H_t
    the same, diagonal          S = (1/n) diag(s_t)^-1            s_t = (1 - rho) s_(t-1) + rho diag H_t
    iBLR                        S = (1/n) diag(h)^-1              h = E diag H at theta ~ N(mean, S), gradients expected, too
    RMSprop, Adam               S = (1/n) diag(sqrt(v) + d)^-1    v the running mean of squared gradients
    SGD                         S = (1/n) rho I                   rho the learning rate

What follows returns n S, so that it goes with gradients of the mean loss. Step sizes of the others are left out, as in the paper:
they turn what one step does into what the posterior does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from estimators.curvature.diagonal import Diagonal
from estimators.curvature.operator import Rows
from workers.errors import ConfigError


def running_curvature(curvatures: Iterable[Tensor], rate: float) -> Tensor:
    """Return S_t = (1 - rate) S_(t-1) + rate H_t of curvatures in their order, beginning at the first: (p, p) or diagonals (p,).

    Raises ConfigError for none.
    """
    running: Tensor | None = None
    for curvature in curvatures:
        running = curvature.clone() if running is None else running.lerp_(curvature, rate)
    if running is None:
        raise ConfigError("online Newton needs the curvature of at least one checkpoint, found none")
    return running


def inverse(curvature: Tensor, damping: float) -> Rows:
    """Return v -> (H + damping I)^-1 v for H (p, p), or a diagonal (p,). Raises ConfigError where it is not positive."""
    if curvature.ndim == 1:
        return Diagonal(curvature).inverse(damping)
    damped = curvature.clone()
    damped.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(damped)
    if int(info) != 0:
        raise ConfigError(
            f"the curvature of {len(curvature)} parameters with damping {damping:g} is not positive: "
            "expected a larger damping"
        )
    return lambda rows: torch.cholesky_solve(rows.T.to(factor.dtype), factor).T.to(rows.dtype)


def root_mean_square(second: Tensor, damping: float) -> Rows:
    """Return v -> v / (sqrt(second) + damping) for Adam's second moment (p,), corrected for its start."""
    return inverse(second.sqrt(), damping)


def scaled(rate: float) -> Rows:
    """Return v -> rate v. Raises ConfigError for a rate that is not above 0."""
    if not rate > 0:
        raise ConfigError(f"row sgd scales by the learning rate of the checkpoint's last step, found {rate:g}")
    return lambda rows: rate * rows


def expected_diagonal(
    curvature: Callable[[Tensor], Tensor], start: Tensor, draws: Tensor, n: int, damping: float, rounds: int
) -> Tensor:
    """Return h (p,), the mean over draws of diag H at mean + sqrt(S) draw with S = 1 / (n (h + damping)): iBLR's fixed point.

    `curvature` maps a step from the mean (p,) to diag H there (p,), `start` is diag H at the mean, `draws` (s, p) are standard
    normal. `rounds` of h -> the mean are gone.
    """
    found = start
    for _ in range(rounds):
        spread = (n * (found + damping)).rsqrt()
        found = torch.stack([curvature(spread * draw) for draw in draws]).mean(0)
    return found
