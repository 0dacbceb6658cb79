"""Solve (A + damping I) x = b for many right-hand sides: what every solver answers, and those that are exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from estimators.curvature.dense import damped_factor
from workers.errors import ConfigError


@dataclass(frozen=True)
class Solution:
    """What a solver answers, and how well."""

    values: Tensor
    """(r, p), one solution a row."""
    residual: float
    """Largest |b - (A + damping I) x| / |b| over the right-hand sides, computed from the solution itself."""
    iterations: int = 0
    """Products with A that the values took, one after the other; 0 for a direct solver."""
    unconverged: int = 0
    """Right-hand sides whose residual is above the tolerance."""


class Solver(Protocol):
    """Anything that maps right-hand sides (r, p) to a Solution."""

    def __call__(self, sides: Tensor) -> Solution:
        """Solve for every row of `sides`."""


def relative(residuals: Tensor, sides: Tensor) -> Tensor:
    """Return |residual| / |side| by row, (r,); 0 where both are 0."""
    norms = sides.norm(dim=1)
    relative: Tensor = residuals.norm(dim=1) / torch.where(norms > 0, norms, 1.0)
    return relative


class CholeskySolver:
    """Factor the symmetric `matrix` (p, p) + damping I once. Raises ConfigError when it is not positive definite.

    >>> import torch
    >>> from estimators.curvature.solvers import CholeskySolver
    >>> solve = CholeskySolver(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), damping=1.0)
    >>> (solve(torch.tensor([[3.0, 1.0], [8.0, 0.0]])).values.round(decimals=2) + 0.0).tolist()
    [[1.0, 0.0], [3.0, -1.0]]
    """

    def __init__(self, matrix: Tensor, damping: float):
        self._matrix, self._damping = matrix, damping
        self._factor = damped_factor(matrix, damping)

    def __call__(self, sides: Tensor) -> Solution:
        """Solve for every row of `sides` (r, p)."""
        values = torch.cholesky_solve(sides.T, self._factor).T
        residuals = relative(sides - values @ self._matrix - self._damping * values, sides)
        return Solution(values, float(residuals.max()))


class RootSolver:
    """Solve for A = roots^T roots, with roots (k, p) of few rows, by the k x k matrix of their inner products (Woodbury).

    Raises ConfigError unless the damping is positive: a matrix of rank k < p has no inverse.

    >>> import torch
    >>> from estimators.curvature.solvers import RootSolver
    >>> solve = RootSolver(torch.tensor([[2.0, 0.0, 1.0]]), damping=1.0)  # a matrix of rank 1
    >>> (solve(torch.tensor([[12.0, 0.0, 6.0], [0.0, 3.0, 0.0]])).values.round(decimals=2) + 0.0).tolist()
    [[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]]
    """

    def __init__(self, roots: Tensor, damping: float):
        if damping <= 0:
            raise ConfigError(
                f"the curvature has rank {len(roots)} of {roots.shape[1]} at most: expected a damping above 0"
            )
        self._roots, self._damping = roots, damping
        inner = roots @ roots.T
        inner.diagonal().add_(damping)
        self._factor = torch.linalg.cholesky(inner)

    def __call__(self, sides: Tensor) -> Solution:
        """Solve for every row of `sides` (r, p)."""
        inside = torch.cholesky_solve(self._roots @ sides.T, self._factor)
        values = (sides - inside.T @ self._roots) / self._damping
        product = (values @ self._roots.T) @ self._roots + self._damping * values
        return Solution(values, float(relative(sides - product, sides).max()))
