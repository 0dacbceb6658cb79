"""Conjugate gradients, with any preconditioner."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.curvature.operator import Rows
from estimators.curvature.solvers import Solution, relative

DRIFT = 2.0
"""A recurrence starts anew from the true residual where that is so many times the tolerance."""


@dataclass(frozen=True)
class ConjugateGradients:
    """Conjugate gradients (Hestenes and Stiefel 1952) on all right-hand sides at once, each with its own step lengths.

    With a preconditioner M^-1 (Golub and Van Loan 2013, algorithm 11.5.1) the error falls with the condition number of
    M^-1 (A + damping I) instead of that of A + damping I. An iteration is one product a side, and one more at the end.

    A right-hand side leaves the batch as soon as its recurrence reports a relative residual below `tolerance`. Where rounding
    let the recurrence drift from the true residual, it starts anew from that one, as long as that halves it. A side that has
    not converged after `max_iterations`, or that meets a direction of no positive curvature, keeps its last iterate and is
    counted.

    >>> import torch
    >>> from estimators.curvature.conjugate_gradients import ConjugateGradients
    >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> solve = ConjugateGradients(lambda rows: rows @ matrix, damping=1.0, tolerance=1e-5, max_iterations=10)
    >>> found = solve(torch.tensor([[3.0, 1.0], [8.0, 0.0]]))
    >>> (found.values.round(decimals=2) + 0.0).tolist(), found.unconverged
    ([[1.0, 0.0], [3.0, -1.0]], 0)
    """

    product: Rows
    """Maps rows v (r, p) to rows A v (r, p); A symmetric."""
    damping: float
    tolerance: float
    max_iterations: int
    preconditioner: Rows | None = None
    """Maps rows v (r, p) to rows M^-1 v (r, p); M symmetric and positive definite."""

    def __call__(self, sides: Tensor) -> Solution:
        """Solve for every row of `sides` (r, p)."""
        values = torch.zeros_like(sides)
        residuals, off = sides, relative(sides, sides)
        targets = self.tolerance * sides.norm(dim=1)
        left, iterations = torch.nonzero(off > self.tolerance).flatten(), 0
        while len(left) and iterations < self.max_iterations:
            steps, taken = self._descend(residuals[left], targets[left], self.max_iterations - iterations)
            values[left] += steps
            iterations += taken
            residuals, before = sides - self._damped(values), off
            off = relative(residuals, sides)
            left = torch.nonzero((off > DRIFT * self.tolerance) & (off < before / 2)).flatten()
        # The recurrence drifts from the true residual by rounding; that factor keeps it from counting as a failure.
        unconverged = int((~(off <= DRIFT * self.tolerance)).sum())
        return Solution(values, float(off.max()) if len(off) else 0.0, iterations, unconverged)

    def _descend(self, sides: Tensor, targets: Tensor, most: int) -> tuple[Tensor, int]:
        """Return steps (r, p) that bring the sides' residuals below the targets (r,), and the iterations taken."""
        values, residuals = torch.zeros_like(sides), sides
        active = torch.arange(len(sides), device=sides.device)
        directions = self._preconditioned(residuals)
        squares = (residuals * directions).sum(1)
        iterations = 0
        while len(active) and iterations < most:
            iterations += 1
            images = self._damped(directions)
            curvatures = (directions * images).sum(1)
            upward = (curvatures > 0) & (squares > 0)
            steps = torch.where(upward, squares / curvatures, 0.0).unsqueeze(1)
            values[active] += steps * directions
            residuals = residuals - steps * images
            towards = self._preconditioned(residuals)
            following = (residuals * towards).sum(1)
            directions = towards + (following / squares).unsqueeze(1) * directions
            going = upward & (residuals.norm(dim=1) > targets[active])
            active, residuals, directions, squares = (
                active[going],
                residuals[going],
                directions[going],
                following[going],
            )
        return values, iterations

    def _damped(self, vectors: Tensor) -> Tensor:
        return self.product(vectors) + self.damping * vectors

    def _preconditioned(self, vectors: Tensor) -> Tensor:
        return vectors if self.preconditioner is None else self.preconditioner(vectors)
