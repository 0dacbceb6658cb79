"""Newton steps on a linearized model, in as many dimensions as it has features or examples, whichever are fewer."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from estimators.curvature.dense import damped_factor
from workers.errors import ConfigError


class NewtonSteps(Protocol):
    """What A = Phi^T R Phi + damping I, of features Phi (n, k) and R = diag(curvature), says of examples."""

    def effects(self, targets: Tensor) -> Tensor:
        """Return Phi A^-1 Phi_q^T, (n, t), for Phi_q (t, k)."""

    def rows(self, dtype: torch.dtype) -> Tensor:
        """Return Phi A^-1, (n, k), of a type."""

    def leverages(self) -> Tensor:
        """Return phi_i^T A^-1 phi_i of every example, (n,)."""


def newton_steps(
    features: Tensor, curvature: Tensor, damping: float, computed_in: torch.dtype = torch.float64
) -> NewtonSteps:
    """Return the steps for `features` (n, k) and `curvature` (n,), none below 0.

    Without a damping A^-1 is the pseudo-inverse: singular values of R^(1/2) Phi that rounding cannot tell from 0 count as 0,
    those below max(n, k) machine epsilons of the type that the features were computed in, times the largest. Raises ConfigError
    where A with its damping is singular.

    >>> import torch
    >>> from estimators.curvature.newton_steps import newton_steps
    >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    >>> steps = newton_steps(features, torch.ones(3, dtype=torch.float64), damping=2.0)  # A = diag(4, 6)
    >>> steps.effects(torch.tensor([[4.0, 6.0]], dtype=torch.float64)).flatten().round(decimals=6).tolist()
    [1.0, 1.0, 2.0]
    >>> steps.leverages().round(decimals=2).tolist()
    [0.25, 0.25, 0.67]
    """
    if damping == 0:
        return _Unregularized(features, curvature, torch.finfo(computed_in).eps)
    return (_ByFeatures if features.shape[1] <= len(features) else _ByExamples)(features, curvature, damping)


class _ByFeatures:
    """A is (k, k)."""

    def __init__(self, features: Tensor, curvature: Tensor, damping: float):
        self._features = features
        self._factor = damped_factor(features.T @ (features * curvature.unsqueeze(1)), damping)

    def effects(self, targets: Tensor) -> Tensor:
        return self._features @ torch.cholesky_solve(targets.T, self._factor)

    def rows(self, dtype: torch.dtype) -> Tensor:
        return torch.cholesky_solve(self._features.T, self._factor).T.to(dtype)

    def leverages(self) -> Tensor:
        halves: Tensor = torch.linalg.solve_triangular(self._factor, self._features.T, upper=False)
        return halves.square().sum(0)


class _ByExamples:
    """The equal form (damping I + K R)^-1 Phi Phi_q^T, with K = Phi Phi^T (n, n)."""

    def __init__(self, features: Tensor, curvature: Tensor, damping: float):
        self._features = features
        self._kernel = features @ features.T
        system = self._kernel * curvature
        system.diagonal().add_(damping)
        self._factors, self._pivots, info = torch.linalg.lu_factor_ex(system)
        if int(info) != 0:
            raise ConfigError(
                f"the kernel matrix ({len(system)} x {len(system)}) with damping {damping:g} is singular: "
                "expected a larger damping"
            )

    def effects(self, targets: Tensor) -> Tensor:
        return self._solved(self._features @ targets.T)

    def rows(self, dtype: torch.dtype) -> Tensor:
        return self._solved(self._features).to(dtype)

    def leverages(self) -> Tensor:
        return self._solved(self._kernel).diagonal().clone()

    def _solved(self, sides: Tensor) -> Tensor:
        found: Tensor = torch.linalg.lu_solve(self._factors, self._pivots, sides)
        return found


class _Unregularized:
    """With the pseudo-inverse of Psi^T Psi for Psi = R^(1/2) Phi: of itself, or as Psi^T (Psi Psi^T)^+^2 Psi."""

    def __init__(self, features: Tensor, curvature: Tensor, epsilon: float):
        rooted = features * curvature.sqrt().unsqueeze(1)
        self._rooted = None if features.shape[1] <= len(features) else rooted
        self._left = features if self._rooted is None else features @ rooted.T
        values, vectors = torch.linalg.eigh(rooted.T @ rooted if self._rooted is None else rooted @ rooted.T)
        size = max(features.shape)
        # Eigenvalues are squares of singular values, and have a rounding of their own.
        cut = max((size * epsilon) ** 2, size * torch.finfo(values.dtype).eps)
        above = values > values[-1] * cut
        inverse = torch.where(above, 1 / torch.where(above, values, 1.0), 0.0)
        # A root of the matrix in the middle: the pseudo-inverse once, or twice.
        self._root = vectors * (inverse.sqrt() if self._rooted is None else inverse)

    def effects(self, targets: Tensor) -> Tensor:
        right = targets.T if self._rooted is None else self._rooted @ targets.T
        found: Tensor = (self._left @ self._root) @ (self._root.T @ right)
        return found

    def rows(self, dtype: torch.dtype) -> Tensor:
        right = self._root.T if self._rooted is None else self._root.T @ self._rooted
        found: Tensor = (self._left @ self._root) @ right
        return found.to(dtype)

    def leverages(self) -> Tensor:
        found: Tensor = (self._left @ self._root).square().sum(1)
        return found
