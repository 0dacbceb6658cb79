"""A stretch of training along which the curvature is taken as constant: what it does to small changes, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.curvature.joined_gradients import scaled
from estimators.curvature.kronecker import KroneckerFactored
from estimators.gradients.factors import Factor
from estimators.gradients.sided_scale import SidedScale


@dataclass(frozen=True)
class Segment:
    """Steps theta <- theta - lr D^2 (gradient), so that a change of theta goes on as exp(-time D^2 H) of it.

    With A = D H D, which is what has an eigenbasis, exp(-time D^2 H) = D exp(-time A) D^-1. Without D it is the identity.
    A parameter whose D is 0 does not move, and hands on what it is.
    """

    curvature: KroneckerFactored
    """A, with what weight decay adds to its eigenvalues."""
    time: float
    """Sum of the steps' rates, times 1 / (1 - momentum)."""
    scales: Sequence[SidedScale] | None = None
    """D, block by block."""

    def turned(self, factors: Sequence[Factor]) -> list[Factor]:
        """Return gradients as Q^T D g, with Q the eigenvectors of A."""
        moved = factors if self.scales is None else scaled(factors, self.scales)
        return [basis.turned(factor) for basis, factor in zip(self.curvature.bases, moved, strict=True)]

    def into(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """Return the same of gradients that are formed, (r, out, in) a block."""
        moved = (
            matrices if self.scales is None else [m * d.formed() for m, d in zip(matrices, self.scales, strict=True)]
        )
        return [basis.into(matrix) for basis, matrix in zip(self.curvature.bases, moved, strict=True)]

    def gathered(self, turned: Sequence[Tensor]) -> list[Tensor]:
        """Return (1 - exp(-time a)) / a times what is turned, along each eigenvector of eigenvalue a.

        Its inner product with Q^T D g is <q, D F D g>, with F the integral over the segment of exp(-s A): what steps against g,
        at every moment of the segment, have moved q by at its end.
        """
        pairs = zip(turned, self.curvature.bases, strict=True)
        return [matrix * self.time * _decayed(self.time * basis.eigenvalues) for matrix, basis in pairs]

    def carried(self, matrices: Sequence[Tensor], turned: Sequence[Tensor]) -> list[Tensor]:
        """Return exp(-time H D^2) q: the derivative at the segment's start of what q (r, out, in) is at its end.

        `turned` is `into(matrices)`.
        """
        found = []
        for place, (matrix, inside, basis) in enumerate(zip(matrices, turned, self.curvature.bases, strict=True)):
            change = basis.back(inside * torch.expm1(-self.time * basis.eigenvalues))
            if self.scales is not None:
                scale = self.scales[place].formed()
                change = change * torch.where(scale > 0, 1 / torch.where(scale > 0, scale, 1.0), 0.0)
            found.append(matrix + change)
        return found

    def turned_on(self, turned: Sequence[Tensor], earlier: Segment) -> list[Tensor]:
        """Return `earlier.into(carried(...))` from what is turned, by one turn from basis to basis: where neither has a D."""
        pairs = zip(turned, self.curvature.bases, earlier.curvature.bases, strict=True)
        return [
            other.reached_from(basis).back(inside * torch.exp(-self.time * basis.eigenvalues))
            for inside, basis, other in pairs
        ]


def _decayed(x: Tensor) -> Tensor:
    """Return (1 - exp(-x)) / x, 1 at 0, without cancellation."""
    safe = torch.where(x == 0, 1.0, x)
    return torch.where(x == 0, 1.0, -torch.expm1(-safe) / safe)
