"""A diagonal matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.curvature.operator import Invertible, Rows
from workers.errors import ConfigError


class Diagonal(Invertible):
    """diag(values) of values (p,). Everything costs p a row.

    >>> import torch
    >>> from estimators.curvature.diagonal import Diagonal
    >>> A = Diagonal(torch.tensor([4.0, 0.0]))
    >>> A.inverse(damping=1.0)(torch.tensor([[10.0, 3.0]])).tolist()
    [[2.0, 3.0]]
    """

    def __init__(self, values: Tensor):
        if values.ndim != 1:
            raise ValueError(f"expected the diagonal as a vector, found shape {tuple(values.shape)}")
        self._values = values
        self.p, self.dtype = len(values), values.dtype

    @property
    def device(self) -> torch.device:
        """That of the values."""
        return self._values.device

    def product(self, rows: Tensor) -> Tensor:
        """Return the values times v."""
        return rows * self._values

    def submatrices(self, places: Sequence[Tensor]) -> list[Tensor]:
        """Return diagonal matrices."""
        return [torch.diag(self._values[at.to(self.device)].double()) for at in places]

    def diagonal(self) -> Tensor:
        """Return the values."""
        return self._values.to(torch.float64, copy=True)

    def inverse(self, damping: float) -> Rows:
        """Return v -> v / (values + damping). Raises ConfigError where one of these is not positive."""
        damped = self._values + damping
        if not bool((damped > 0).all()):
            raise ConfigError(
                f"the diagonal curvature with damping {damping:g} is not positive: found {float(damped.min()):g}, "
                "expected a larger damping"
            )
        return lambda rows: rows / damped

    def root(self) -> Rows:
        """Return v -> v times the root of the values. Raises ConfigError for one below 0."""
        if not bool((self._values >= 0).all()):
            raise ConfigError(
                f"the curvature has no real root: found {float(self._values.min()):g} on the diagonal, expected none below 0"
            )
        half = self._values.sqrt()
        return lambda rows: rows * half
