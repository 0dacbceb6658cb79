"""Nystroem's approximation of a positive curvature: from a random sketch, as a solver and as a preconditioner."""

from __future__ import annotations

import torch
from torch import Tensor

from estimators.curvature.operator import Rows
from estimators.curvature.solvers import Solution, relative
from workers.errors import ConfigError


class Nystroem:
    """A ~ U^T diag(values) U, (p, p) of rank s, from A Omega for s random orthonormal rows Omega (s, p).

    Frangella, Tropp and Udell 2023 (Randomized Nystroem preconditioning), algorithm 2.1: A Omega (Omega^T A Omega)^-1 Omega^T A,
    the best approximation from below that the sketch knows, shifted by rounding while it is computed. Costs s products and
    2 s^2 p multiplications once; holds three times s rows while it is made, and s after.

    Raises ConfigError for a rank out of 1..p, and where A has directions of negative curvature that the sketch met.

    >>> import torch
    >>> from estimators.curvature.nystroem import Nystroem
    >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    >>> sketch = Nystroem(lambda rows: rows @ matrix, torch.eye(2, dtype=torch.float64))
    >>> [round(value, 6) for value in sketch.values.tolist()]
    [3.0, 1.0]
    >>> sketch.inverse(1.0)(torch.tensor([[8.0, 0.0]], dtype=torch.float64)).round(decimals=6).tolist()
    [[3.0, -1.0]]
    """

    def __init__(self, product: Rows, sketch: Tensor):
        rank, p = sketch.shape
        if not 1 <= rank <= p:
            raise ConfigError(f"rank: expected 1 to {p} (the parameters), found {rank}")
        omega = torch.linalg.qr(sketch.T).Q.T.contiguous()
        image = product(omega)
        self._values, self.vectors = torch.zeros(rank).to(image), omega
        """Eigenvectors (s, p), orthonormal rows."""
        shift = float(image.norm()) * p**0.5 * torch.finfo(image.dtype).eps
        if shift == 0:  # A Omega = 0: nothing is curved
            return
        shifted = image + shift * omega
        inner = omega @ shifted.T
        factor, info = torch.linalg.cholesky_ex((inner + inner.T) / 2)
        if int(info) != 0:
            raise ConfigError(
                "a Nystroem approximation needs a curvature without negative eigenvalues, and this one has some: "
                "expected the Gauss-Newton or a Fisher matrix"
            )
        rows = torch.linalg.solve_triangular(factor, shifted, upper=False)
        _, singular, self.vectors = torch.linalg.svd(rows, full_matrices=False)
        self._values = (singular.square() - shift).clamp(min=0)

    @property
    def values(self) -> Tensor:
        """Eigenvalues (s,), descending, none below 0."""
        return self._values

    def inverse(self, damping: float) -> Rows:
        """Return v -> (U^T diag(values) U + damping I)^-1 v. Raises ConfigError unless the damping is positive."""
        if damping <= 0:
            raise ConfigError(
                f"a Nystroem approximation has rank {len(self.values)} of {self.vectors.shape[1]}: "
                f"expected a damping above 0, found {damping:g}"
            )
        return self._map(1 / (self.values + damping), 1 / damping)

    def preconditioner(self, damping: float) -> Rows:
        """Return v -> M^-1 v for A + damping I: the smallest known value + damping stands for all that are unknown.

        Their preconditioner: M^-1 = (values[-1] + damping) U^T (diag(values) + damping)^-1 U + (I - U^T U). Raises ConfigError
        unless the damping is positive.
        """
        if damping <= 0:
            raise ConfigError(f"a Nystroem preconditioner needs a damping above 0, found {damping:g}")
        return self._map((self.values[-1] + damping) / (self.values + damping), 1.0)

    def _map(self, inside: Tensor, outside: float) -> Rows:
        """Return the map with eigenvalues `inside` (s,) on the sketched space, and `outside` on what is orthogonal to it."""

        def mapped(rows: Tensor) -> Tensor:
            sketched: Tensor = ((rows @ self.vectors.T) * (inside - outside)) @ self.vectors
            return outside * rows + sketched

        return mapped


class NystroemSolver:
    """Sketch and solve: the damped inverse of the approximation, exact at full rank.

    The true residual costs one product a block of sides, and is what tells how much of the curvature the sketch left out: a
    side that lies where it has not looked is divided by the damping alone.

    >>> import torch
    >>> from estimators.curvature.nystroem import Nystroem, NystroemSolver
    >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    >>> sketch = Nystroem(lambda rows: rows @ matrix, torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    >>> found = NystroemSolver(lambda rows: rows @ matrix, sketch, damping=1.0, tolerance=1e-3)(torch.ones(1, 2).double())
    >>> found.values.round(decimals=3).tolist(), round(found.residual, 3), found.unconverged
    ([[0.143, 0.571]], 0.606, 1)
    """

    def __init__(self, product: Rows, sketch: Nystroem, damping: float, tolerance: float):
        self._product, self._damping, self._tolerance = product, damping, tolerance
        self._inverse, self._rank = sketch.inverse(damping), len(sketch.values)

    def __call__(self, sides: Tensor) -> Solution:
        """Solve for every row of `sides` (r, p)."""
        found = self._inverse(sides)
        off = relative(sides - self._product(found) - self._damping * found, sides)
        unconverged = int((~(off <= self._tolerance)).sum())
        return Solution(found, float(off.max()) if len(off) else 0.0, self._rank, unconverged)
