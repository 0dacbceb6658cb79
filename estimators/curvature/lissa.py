"""LiSSA: a damped inverse as a truncated Neumann series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.curvature.operator import Rows
from estimators.curvature.solvers import Solution, relative
from workers.errors import ConfigError

GROWTH = 10.0
"""Terms of the series that are so many times the right-hand side will not come down again."""


def largest_eigenvalue(product: Rows, start: Tensor, iterations: int = 30) -> float:
    """Return the largest |A v| / |v| that power iteration from `start` (1, p) meets: at most the largest |eigenvalue|."""
    vector, largest = start / start.norm(), 0.0
    for _ in range(iterations):
        image = product(vector)
        size = float(image.norm())
        largest = max(largest, size)
        if size == 0:
            break
        vector = image / size
    return largest


@dataclass(frozen=True)
class Lissa:
    """x = (1/scale) sum over j < depth of (I - (A + damping I) / scale)^j b, by h_j = b + (I - (A + damping I) / scale) h_(j-1).

    Agarwal, Bullins and Hazan 2017, algorithm 1; Koh and Liang 2017, section 3. The series converges where all eigenvalues of
    A + damping I lie between 0 and 2 scale; with the smallest s the error after `depth` terms is (1 - s / scale)^depth, so that a
    depth of scale / s * log(1 / error) is needed: far more products than conjugate gradients take. With `sampled` term j uses
    the curvature of some examples that are drawn for it, as the paper does, and the mean of `repeats` series is taken; their
    largest eigenvalues are above the whole's, so the scale must be, too.

    Raises ConfigError where the terms grow: the series diverges. A side whose true residual is above `tolerance` is counted.

    >>> import torch
    >>> from estimators.curvature.lissa import Lissa
    >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> solve = Lissa(lambda rows: rows @ matrix, damping=1.0, scale=4.0, depth=40, tolerance=1e-3)
    >>> found = solve(torch.tensor([[3.0, 1.0], [8.0, 0.0]]))
    >>> (found.values.round(decimals=2) + 0.0).tolist(), found.unconverged
    ([[1.0, 0.0], [3.0, -1.0]], 0)
    """

    product: Rows
    """Maps rows v (r, p) to rows A v (r, p); the true residual is taken with it."""
    damping: float
    scale: float
    """Above half the largest eigenvalue of A + damping I; at or above it no term has the wrong sign."""
    depth: int
    """Terms of the series."""
    tolerance: float
    sampled: Callable[[int], Rows] | None = None
    """The product to use for term j of all series, counted through; None uses `product` for every one."""
    repeats: int = 1
    """Series whose mean is taken; more than one only tells where terms are sampled."""

    def __call__(self, sides: Tensor) -> Solution:
        """Solve for every row of `sides` (r, p)."""
        values = torch.zeros_like(sides)
        for repeat in range(self.repeats):
            values += self._series(sides, repeat * self.depth) / self.repeats
        off = relative(sides - self.product(values) - self.damping * values, sides)
        unconverged = int((~(off <= self.tolerance)).sum())
        return Solution(values, float(off.max()) if len(off) else 0.0, self.depth * self.repeats, unconverged)

    def _series(self, sides: Tensor, first: int) -> Tensor:
        norms = sides.norm(dim=1)
        total, change = sides, sides
        for j in range(1, self.depth):
            product = self.product if self.sampled is None else self.sampled(first + j)
            following = sides + total - (product(total) + self.damping * total) / self.scale
            change, total = following - total, following
            # A change is a term of the series; it is not above the side before the terms grow.
            if not bool((change.norm(dim=1) <= GROWTH * norms).all()):
                raise ConfigError(
                    f"lissa diverges at scale {self.scale:g}: term {j} is more than {GROWTH:g} times the right-hand side; "
                    "expected a scale above the largest eigenvalue of the damped curvature, and none of these below 0"
                )
        return total / self.scale
