"""Curvature in a small space: the second moment of projected gradients, block by block, and steps through its inverse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from estimators.curvature.damping import MEAN_FRACTION
from estimators.curvature.solvers import CholeskySolver
from workers.errors import ConfigError


class ProjectedCurvature(Protocol):
    """A symmetric matrix H (k, k) of one block's projected parameters, in float64."""

    def mean_eigenvalue(self) -> float:
        """Return the mean of its eigenvalues."""

    def solved(self, targets: Tensor, damping: float) -> Tensor:
        """Return (H + damping I)^-1 of every row, (t, k)."""


class SecondMoment:
    """H = (1/n) sum of w_i phi_i phi_i^T, of rows w_i phi_i: gradients of weighted losses, projected.

    >>> import torch
    >>> from estimators.curvature.projected import SecondMoment
    >>> rows = torch.tensor([[2.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    >>> moment = SecondMoment(rows, weights=torch.tensor([1.0, 4.0]))
    >>> moment.mean_eigenvalue(), moment.matrix.tolist()
    (2.0, [[2.0, 0.0], [0.0, 2.0]])
    >>> moment.solved(torch.tensor([[8.0, 4.0]], dtype=torch.float64), damping=2.0).round(decimals=6).tolist()
    [[2.0, 1.0]]
    """

    def __init__(self, features: Tensor, weights: Tensor | None):
        rooted = by_root_of_weight(features, weights)
        self.matrix = rooted.T @ rooted / len(features)

    def mean_eigenvalue(self) -> float:
        """Return tr H / k."""
        return float(self.matrix.trace()) / len(self.matrix)

    def solved(self, targets: Tensor, damping: float) -> Tensor:
        """Return (H + damping I)^-1 of every row, (t, k)."""
        return CholeskySolver(self.matrix, damping)(targets).values


class DampedSteps:
    """Sums over blocks of factor * phi_i^T (H + damping I)^-1 phi_q, for features (n, k) of the examples, block by block.

    A damping of `mean_eigenvalue` is a tenth of the block's. Raises ConfigError, in the estimator's name, where that is 0.
    """

    def __init__(
        self,
        features: Sequence[Tensor],
        curvatures: Sequence[ProjectedCurvature],
        damping: float | Literal["mean_eigenvalue"],
        name: str,
        factor: float = 1.0,
    ):
        self._features, self._curvatures, self._factor = features, curvatures, factor
        self.dampings = [
            damping_of(one.mean_eigenvalue(), name) if isinstance(damping, str) else damping for one in curvatures
        ]
        """Of every block."""

    def effects(self, targets: Tensor) -> Tensor:
        """Return them for queries whose features are (t, k), all blocks side by side: (n, t)."""
        parts = torch.split(targets, [one.shape[1] for one in self._features], 1)
        total = targets.new_zeros(len(self._features[0]), len(targets))
        for one, solved in zip(self._features, self._solved(parts), strict=True):
            total += one @ solved.T
        return total * self._factor

    def rows(self, dtype: torch.dtype) -> Tensor:
        """Return factor * (H + damping I)^-1 phi_i, all blocks side by side: (n, k)."""
        return torch.cat([(self._factor * part).to(dtype) for part in self._solved(self._features)], 1)

    def _solved(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        for part, curvature, damping in zip(parts, self._curvatures, self.dampings, strict=True):
            yield curvature.solved(part, damping)


def damping_of(mean_eigenvalue: float, name: str) -> float:
    """Return a tenth of the mean eigenvalue. Raises ConfigError, in the estimator's name, where it is 0."""
    found = MEAN_FRACTION * mean_eigenvalue
    if found == 0:
        raise ConfigError(f"{name}: all gradients of a layer are 0, so its damping is: expected a damping of your own")
    return found


def by_root_of_weight(features: Tensor, weights: Tensor | None) -> Tensor:
    """Return rows w_i^(1/2) phi_i from rows w_i phi_i; of weight 0 they are 0, as that example has no gradient."""
    if weights is None:
        return features
    weights = weights.to(features.dtype)
    tiny = torch.finfo(weights.dtype).tiny
    return features * torch.where(weights > 0, weights.clamp(min=tiny).rsqrt(), 0.0).unsqueeze(1)
