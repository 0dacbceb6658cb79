"""A positive number for every parameter of a block that is a product of one for its row and one for its column."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from estimators.gradients.factors import EmbeddingRows, Factor, Formed, Outer


@dataclass(frozen=True)
class SidedScale:
    """D (out, in) = outer(out, inner): gradients that are sums of outer products stay so when they are multiplied by it."""

    out: Tensor
    """(out,), >= 0."""
    inner: Tensor
    """(in,), >= 0."""

    @classmethod
    def inverse_root(cls, values: Tensor) -> SidedScale:
        """Return D near `values`^(-1/4), 0 for rows and columns of zeros.

        `values` (out, in) >= 0 are squares of what a preconditioner divides by: D is then near the root of the preconditioner.
        Values are approximated by (row means) x (column means) / (their mean), the nearest such product in the generalized
        Kullback-Leibler divergence (Lee & Seung 1999), which is how Adafactor keeps second moments (Shazeer & Stern 2018,
        section 3). It is exact for a block of one row.
        """
        wide = values.double()
        rows, columns, mean = wide.mean(1), wide.mean(0), wide.mean()
        parts = rows / torch.where(mean > 0, mean, 1.0), columns
        out, inner = (torch.where(part > 0, part, 1.0) ** -0.25 * (part > 0) for part in parts)
        return cls(out.to(values.dtype), inner.to(values.dtype))

    def formed(self) -> Tensor:
        """Return D, (out, in)."""
        return torch.outer(self.out, self.inner)

    def times(self, factor: Factor) -> Factor:
        """Return gradients times D, coordinate by coordinate."""
        if isinstance(factor, Outer):
            return Outer(factor.inputs * self.inner, factor.outputs * self.out)
        if isinstance(factor, EmbeddingRows):
            return replace(factor, outputs=factor.outputs * self.out[factor.tokens].unsqueeze(2) * self.inner)
        return Formed(factor.formed() * self.formed())
