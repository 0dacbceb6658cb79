"""A matrix that is held."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.curvature.operator import Invertible, Rows
from workers.errors import ConfigError


class Dense(Invertible):
    """A symmetric matrix (p, p). A product costs p^2 a row; the inverse p^3 / 3 once (Cholesky), the root about 10 p^3.

    Raises ValueError unless it is square and symmetric to rounding.

    >>> import torch
    >>> from estimators.curvature.dense import Dense
    >>> A = Dense(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> (A.inverse(damping=1.0)(torch.tensor([[3.0, 1.0]])).round(decimals=2) + 0.0).tolist()
    [[1.0, 0.0]]
    """

    def __init__(self, matrix: Tensor):
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"expected a square matrix, found shape {tuple(matrix.shape)}")
        off = float((matrix - matrix.T).abs().max()) if len(matrix) else 0.0
        if off > 100 * torch.finfo(matrix.dtype).eps * float(matrix.abs().max()):
            raise ValueError(f"expected a symmetric matrix, found entries that differ by {off:g} from their mirror's")
        self.matrix = matrix
        self.p, self.dtype = len(matrix), matrix.dtype

    @property
    def device(self) -> torch.device:
        """That of the matrix."""
        return self.matrix.device

    def product(self, rows: Tensor) -> Tensor:
        """Return A v."""
        return rows @ self.matrix

    def dense(self) -> Tensor:
        """Return the matrix in float64."""
        return self.matrix.to(torch.float64, copy=True)

    def submatrices(self, places: Sequence[Tensor]) -> list[Tensor]:
        """Return its parts."""
        return [self.matrix[at[:, None], at].double() for at in (one.to(self.device) for one in places)]

    def diagonal(self) -> Tensor:
        """Return its diagonal."""
        return self.matrix.diagonal().double()

    def inverse(self, damping: float) -> Rows:
        """Return v -> (A + damping I)^-1 v, by Cholesky. Raises ConfigError where that is not positive definite."""
        factor = damped_factor(self.matrix, damping)
        return lambda rows: torch.cholesky_solve(rows.T, factor).T

    def root(self) -> Rows:
        """Return v -> A^(1/2) v. Raises ConfigError for an eigenvalue below 0 by more than rounding."""
        values, vectors = torch.linalg.eigh(self.matrix)
        rounding = 10 * self.p * torch.finfo(self.dtype).eps * float(values.abs().max())
        if float(values[0]) < -rounding:
            raise ConfigError(
                f"the curvature has no real root: found eigenvalue {float(values[0]):g}, expected none below 0"
            )
        half = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        return lambda rows: rows @ half


def damped_factor(matrix: Tensor, damping: float) -> Tensor:
    """Return the Cholesky factor (p, p) of matrix + damping I. Raises ConfigError when that is not positive definite."""
    damped = matrix.clone()
    damped.diagonal().add_(damping)
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(damped)
    if int(info) != 0:
        raise ConfigError(
            f"the curvature matrix ({len(matrix)} x {len(matrix)}) with damping {damping:g} is not positive "
            "definite: expected a larger damping"
        )
    return factor
