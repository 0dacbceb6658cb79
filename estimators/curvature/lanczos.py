"""Lanczos' iteration: the ends of a curvature's spectrum, shared by all queries."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from estimators.curvature.operator import Rows
from estimators.curvature.solvers import Solution, relative
from workers.errors import ConfigError


def lanczos(product: Rows, start: Tensor, iterations: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return Ritz values (k,), ascending, and Ritz vectors (k, p), orthonormal rows, of a symmetric map of rows.

    The subspace is that of `iterations` products, begun at `start` (p,), every new vector orthogonalized against all before it,
    twice, as Arnoldi's iteration does (Golub and Van Loan 2013, section 10.3.2): rounding would lose that in three terms. Where
    the subspace is invariant before, it goes on with a vector drawn by the seed. k is min(iterations, p). Holds k rows.
    """
    p = len(start)
    k = min(iterations, p)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.zeros(k, p, dtype=start.dtype, device=start.device)
    inner = torch.zeros(k, k, dtype=start.dtype, device=start.device)
    basis[0] = start / start.norm()
    for j in range(k):
        image = product(basis[j : j + 1])[0]
        size = float(image.norm())
        known = basis[: j + 1]
        inner[j, : j + 1] = known @ image
        for _ in range(2):
            image = image - (known @ image) @ known
        if j + 1 == k:
            break
        if float(image.norm()) <= 100 * torch.finfo(image.dtype).eps * size:
            image = torch.randn(p, generator=generator, dtype=torch.float64).to(image)
            for _ in range(2):
                image = image - (known @ image) @ known
        basis[j + 1] = image / image.norm()
    # The matrix of the map in the basis is symmetric: its lower triangle is enough.
    values, turned = torch.linalg.eigh(inner, UPLO="L")
    return values, turned.T @ basis


class LanczosSolver:
    """x = V (Lambda + damping I)^-1 V^T b, with the `rank` Ritz pairs of largest |value| among those of the iteration.

    Schioppa et al. 2022 (Scaling Up Influence Functions), section 3: what lies outside the space of V is dropped, as they do
    (`outside="dropped"`); `outside="flat"` takes the curvature for 0 there, which adds (b - V V^T b) / damping. At full rank
    both are the inverse. All queries share `iterations` products; a solve is 2 rank p multiplications a side, and one product
    more for its true residual.

    Raises ConfigError where a kept value + damping is not positive, or for a rank below 1.

    >>> import torch
    >>> from estimators.curvature.lanczos import LanczosSolver
    >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> solve = LanczosSolver(lambda rows: rows @ matrix, 1.0, torch.tensor([1.0, 0.0]), rank=2, iterations=2)
    >>> (solve(torch.tensor([[3.0, 1.0], [8.0, 0.0]])).values.round(decimals=2) + 0.0).tolist()
    [[1.0, 0.0], [3.0, -1.0]]
    """

    def __init__(
        self,
        product: Rows,
        damping: float,
        start: Tensor,
        rank: int,
        iterations: int,
        tolerance: float = 1e-3,
        outside: Literal["dropped", "flat"] = "dropped",
        seed: int = 0,
    ):
        if rank < 1:
            raise ConfigError(f"rank: expected at least 1, found {rank}")
        self._product, self._damping, self._tolerance, self._outside = product, damping, tolerance, outside
        values, vectors = lanczos(product, start, max(iterations, rank), seed)
        kept = values.abs().argsort(descending=True)[:rank]
        self.values, self._vectors = values[kept], vectors[kept]
        lowest = float(self.values.min()) + damping
        if lowest <= 0 or (outside == "flat" and damping <= 0):
            raise ConfigError(
                f"the curvature with damping {damping:g} is not positive definite: found eigenvalue {lowest:g}, "
                "expected a larger damping"
            )
        self.iterations = min(max(iterations, rank), len(start))

    def __call__(self, sides: Tensor) -> Solution:
        """Solve for every row of `sides` (r, p)."""
        inside = sides @ self._vectors.T
        found = (inside / (self.values + self._damping)) @ self._vectors
        if self._outside == "flat":
            found = found + (sides - inside @ self._vectors) / self._damping
        off = relative(sides - self._product(found) - self._damping * found, sides)
        unconverged = int((~(off <= self._tolerance)).sum())
        return Solution(found, float(off.max()) if len(off) else 0.0, self.iterations, unconverged)
