"""Curvature as a linear map: what every operator can do, and how operators are added, multiplied and damped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

UNITS = 256
"""Unit vectors that are multiplied at once to read off a matrix."""
Rows: TypeAlias = Callable[[Tensor], Tensor]
"""A linear map of rows (r, p) -> (r, p)."""


class Operator(ABC):
    """A symmetric linear map A of flat parameters, in the order of `Model.flatten`.

    A subclass sets `p` and `dtype` and writes `product`; what it can do cheaper than by products, it overrides.

    >>> import torch
    >>> from estimators.curvature.dense import Dense
    >>> from estimators.curvature.diagonal import Diagonal
    >>> A = Dense(torch.tensor([[2.0, 1.0], [1.0, 2.0]])) + 3.0 * Diagonal(torch.tensor([1.0, 0.0]))
    >>> A.damped(0.5).dense().tolist(), A.trace()
    ([[5.5, 1.0], [1.0, 2.5]], 7.0)
    >>> A.product(torch.tensor([[1.0, -1.0]])).tolist()
    [[4.0, -1.0]]
    """

    p: int
    """Number of parameters."""
    dtype: torch.dtype
    """Of the rows that it maps."""

    @property
    def device(self) -> torch.device:
        """Where the rows lie that it maps."""
        return torch.device("cpu")

    @abstractmethod
    def product(self, rows: Tensor) -> Tensor:
        """Return A v for every row v of `rows`, (r, p) -> (r, p)."""

    def dense(self) -> Tensor:
        """Return A, (p, p) float64. By default p products."""
        return self.submatrices([torch.arange(self.p)])[0]

    def submatrices(self, places: Sequence[Tensor]) -> list[Tensor]:
        """Return A[at, at], (k, k) float64, for each `at` (k,) int64 of `places`. By default a product for each index."""
        return [self._submatrix(at.to(self.device)) for at in places]

    def _submatrix(self, at: Tensor) -> Tensor:
        found = torch.empty(len(at), len(at), dtype=torch.float64, device=self.device)
        for start in range(0, len(at), UNITS):
            part = at[start : start + UNITS]
            units = torch.zeros(len(part), self.p, dtype=self.dtype, device=self.device)
            units[torch.arange(len(part), device=self.device), part] = 1
            found[start : start + UNITS] = self.product(units)[:, at].double()
        return (found + found.T) / 2

    def diagonal(self) -> Tensor:
        """Return diag A, (p,) float64. By default from `dense`."""
        return self.dense().diagonal().clone()

    def trace(self) -> float:
        """Return tr A. By default from `diagonal`."""
        return float(self.diagonal().sum())

    def estimated_trace(self, probes: int, seed: int) -> float:
        """Estimate tr A as the mean of v^T A v over random signs v (Hutchinson 1990): one product for every probe."""
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (probes, self.p), generator=generator).to(self.device, self.dtype) * 2 - 1
        return float((signs * self.product(signs)).sum() / probes)

    def damped(self, damping: float) -> Damped:
        """Return A + damping I."""
        return Damped(self, damping)

    def __add__(self, other: Operator) -> Sum:
        return Sum(self, other)

    def __rmul__(self, factor: float) -> Multiple:
        return Multiple(factor, self)


class Invertible(Operator):
    """An operator with an inverse and a square root in closed form."""

    @abstractmethod
    def inverse(self, damping: float) -> Rows:
        """Return the map of rows v -> (A + damping I)^-1 v. Raises ConfigError where that is not positive definite."""

    @abstractmethod
    def root(self) -> Rows:
        """Return the map of rows v -> A^(1/2) v, the symmetric root. Raises ConfigError for an eigenvalue below 0."""


class Sum(Operator):
    """A + B, of one p, dtype and device. Raises ValueError where they differ."""

    def __init__(self, first: Operator, second: Operator):
        for name in ("p", "dtype", "device"):
            one, other = getattr(first, name), getattr(second, name)
            if one != other:
                raise ValueError(f"operators that are added have one {name}, found {one} and {other}")
        self._first, self._second = first, second
        self.p, self.dtype = first.p, first.dtype

    @property
    def device(self) -> torch.device:
        """That of both."""
        return self._first.device

    def product(self, rows: Tensor) -> Tensor:
        """Return A v + B v."""
        return self._first.product(rows) + self._second.product(rows)

    def submatrices(self, places: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums."""
        both = zip(self._first.submatrices(places), self._second.submatrices(places), strict=True)
        return [one + other for one, other in both]

    def diagonal(self) -> Tensor:
        """Return diag A + diag B."""
        return self._first.diagonal() + self._second.diagonal()

    def trace(self) -> float:
        """Return tr A + tr B."""
        return self._first.trace() + self._second.trace()


class Multiple(Operator):
    """c A."""

    def __init__(self, factor: float, operator: Operator):
        self._factor, self._operator = factor, operator
        self.p, self.dtype = operator.p, operator.dtype

    @property
    def device(self) -> torch.device:
        """That of A."""
        return self._operator.device

    def product(self, rows: Tensor) -> Tensor:
        """Return c A v."""
        return self._factor * self._operator.product(rows)

    def submatrices(self, places: Sequence[Tensor]) -> list[Tensor]:
        """Return the multiples."""
        return [self._factor * one for one in self._operator.submatrices(places)]

    def diagonal(self) -> Tensor:
        """Return c diag A."""
        return self._factor * self._operator.diagonal()

    def trace(self) -> float:
        """Return c tr A."""
        return self._factor * self._operator.trace()


class Damped(Operator):
    """A + damping I."""

    def __init__(self, operator: Operator, damping: float):
        self._operator, self._damping = operator, damping
        self.p, self.dtype = operator.p, operator.dtype

    @property
    def device(self) -> torch.device:
        """That of A."""
        return self._operator.device

    def product(self, rows: Tensor) -> Tensor:
        """Return A v + damping v."""
        return self._operator.product(rows) + self._damping * rows

    def submatrices(self, places: Sequence[Tensor]) -> list[Tensor]:
        """Return those of A, damped."""
        found = self._operator.submatrices(places)
        for one in found:
            one.diagonal().add_(self._damping)
        return found

    def diagonal(self) -> Tensor:
        """Return diag A + damping."""
        return self._operator.diagonal() + self._damping

    def trace(self) -> float:
        """Return tr A + p damping."""
        return self._operator.trace() + self.p * self._damping
