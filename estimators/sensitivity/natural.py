"""Sensitivity by sampling: for losses that have no gradient, and for parameters that are discrete.

The equation in its general form (Nickl et al. 2023): a posterior of an exponential family with statistics T(theta) and natural
parameters lambda moves, without example i, by the natural gradient of the expected loss,

    lambda^(without i) - lambda = F^-1 grad_lambda E loss_i = F^-1 Cov(T, loss_i),    F = Cov(T, T),

for grad_lambda E loss = E loss (T - E T) (score function): values of the loss are all that is asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.errors import ConfigError


def natural_gradients(statistics: Tensor, losses: Tensor, fisher: Tensor | None = None) -> Tensor:
    """Return F^-1 Cov(T, loss_i) for every example, (n, k), from s draws of the parameters.

    `statistics` (s, k) are T at the draws, `losses` (s, n) the examples' losses there. `fisher` is F where it is known,
    (k, k), or its diagonal (k,); None estimates it from the same draws: the natural gradient is then the slope of the
    least-squares fit of the losses on the statistics, without any error where a loss is linear in them (conjugate models).
    Raises ConfigError for fewer draws than statistics, or statistics that depend on each other.

    >>> import torch
    >>> from estimators.sensitivity.natural import natural_gradients
    >>> chance = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    >>> statistics = torch.stack([chance.log(), (1 - chance).log()], 1)  # a Beta posterior's
    >>> heads = -chance.log().unsqueeze(1)  # the loss of a head
    >>> natural_gradients(statistics, heads).round(decimals=6).tolist()  # without it the Beta has a head less
    [[-1.0, 0.0]]
    """
    draws, size = statistics.shape
    centred = statistics - statistics.mean(0)
    against = losses - losses.mean(0)
    if fisher is not None:
        covariances = centred.T @ against / draws
        return (covariances / fisher[:, None] if fisher.ndim == 1 else torch.linalg.solve(fisher, covariances)).T
    moment = centred.T @ centred
    if draws <= size or int(torch.linalg.matrix_rank(moment, hermitian=True)) < size:
        raise ConfigError(
            f"the Fisher matrix of {size} statistics cannot be estimated from {draws} draws: "
            f"expected more draws, all statistics free, or fisher"
        )
    solved: Tensor = torch.linalg.solve(moment, centred.T @ against)
    return solved.T


def expectation_deviations(statistics: Tensor, measured: Tensor, moved: Tensor) -> Tensor:
    """Return how the expectations of t measures change when natural parameters move by (n, k): (n, t), to first order.

    That is Cov(f_q, T) times the move, from `statistics` (s, k) and `measured` (s, t) at the same draws.
    """
    centred = statistics - statistics.mean(0)
    return moved @ (centred.T @ (measured - measured.mean(0))) / len(statistics)


def binary_natural_gradients(means: Tensor, signs: Tensor, losses: Tensor) -> Tensor:
    """Return the natural gradients (n, k) for independent weights of +1 and -1 with `means` (k,), |mean| < 1.

    T is the weight itself and F diagonal, 1 - mean^2 (BayesBiNN: Meng et al. 2020), so that they are Cov(w_j, loss_i) over that;
    a weight that is all but settled weighs what is drawn of it the more. `signs` (s, k) are the draws. Raises ConfigError for
    means at -1 or 1.
    """
    fisher = 1 - means.square()
    if not bool((fisher > 0).all()):
        raise ConfigError(
            f"binary weights need means between -1 and 1, found {float(means.abs().max()):g}: a settled weight has no posterior"
        )
    return natural_gradients(signs, losses, fisher)
