"""Sparse random projection of gradients layer by layer: a mask on each layer's sides, then few signed sums of what is left."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from estimators.gradients.factored_projection import FactoredProjection, Picked, Side
from estimators.gradients.factors import Factor
from estimators.gradients.parameter_blocks import ParameterBlock
from estimators.gradients.sparse_projection import KEPT, SparseProjection

_STREAM = zlib.crc32(b"estimators.factored_sparse_projection")


@dataclass(frozen=True)
class FactoredSparseProjection:
    """FactGraSS (Hu et al. 2025, section 3.3): of a gradient matrix G (out, in) some rows and columns, and signed sums of these.

    For `ranks` (k_out, k_in) a block has k_out k_in dimensions: 2 k_out rows and 2 k_in columns are kept at random (all, where
    there are no more), and their products are added up by a sparse Johnson-Lindenstrauss transform. For a sum of outer products
    only the entries that are kept are multiplied: no gradient is formed, and nothing is multiplied by a dense matrix. Inner
    products are kept in expectation. What is no larger than its dimensions stays as it is.
    """

    masks: FactoredProjection
    sums: tuple[SparseProjection | None, ...]
    """Block by block; None for one that is small enough after its mask."""

    @classmethod
    def random(
        cls,
        blocks: Sequence[ParameterBlock],
        ranks: Sequence[tuple[int, int]],
        seed: int,
        stream: int,
        dtype: torch.dtype,
    ) -> FactoredSparseProjection:
        """Draw the masks and sums of every block."""
        sides, dimensions = [], []
        for at, (block, wanted) in enumerate(zip(blocks, ranks, strict=True)):
            dimensions.append(math.prod(min(k, size) for k, size in zip(wanted, block.shape, strict=True)))
            whole = dimensions[-1] == block.size
            # A gradient that is kept as it is has one side, which has to leave what two sides do.
            blowup = KEPT if block.form == "formed" else math.isqrt(KEPT)
            made = [
                _mask(
                    size,
                    size if whole else blowup * k,
                    np.random.SeedSequence(seed, spawn_key=(_STREAM, stream, at, which)),
                )
                for which, (size, k) in enumerate(zip(block.shape, wanted, strict=True))
            ]
            sides.append((made[0], made[1]))
        masks = FactoredProjection(tuple(blocks), tuple(sides))
        sums = [
            None if size == k else SparseProjection(size, k, seed, stream, dtype, kept=size, block=at + 1)
            for at, (size, k) in enumerate(zip(masks.sizes, dimensions, strict=True))
        ]
        return cls(masks, tuple(sums))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Dimensions of every block's part."""
        return tuple(size if one is None else one.k for one, size in zip(self.sums, self.masks.sizes, strict=True))

    @property
    def k(self) -> int:
        """Dimensions in all."""
        return sum(self.sizes)

    def parts(self, factors: Sequence[Factor]) -> list[Tensor]:
        """Return the projected gradients of some examples, (b, k_out k_in) a block."""
        left = self.masks.parts(factors)
        return [part if one is None else one(part) for one, part in zip(self.sums, left, strict=True)]

    def __call__(self, factors: Sequence[Factor]) -> Tensor:
        """Return the projected gradients of some examples, (b, k)."""
        return torch.cat(self.parts(factors), dim=1)


def _mask(size: int, k: int, key: np.random.SeedSequence) -> Side:
    """Return the side that keeps k of `size` entries, so that inner products are kept in expectation."""
    if k >= size:
        return Side(None)
    places = np.random.Generator(np.random.PCG64(key)).choice(size, k, replace=False)
    return Picked(None, torch.from_numpy(np.sort(places)), math.sqrt(size / k))
