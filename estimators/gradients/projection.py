"""Seeded random projection of gradients, p -> k, that keeps inner products in expectation (Johnson-Lindenstrauss)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Kind = Literal["rademacher", "normal"]
BLOCK = 1024
"""Rows of the projection drawn from one generator. Part of the definition of P: no budget changes it."""


class Projection:
    """The map g -> g P with P (p, k) of independent entries of mean 0 and variance 1/k, so E <gP, hP> = <g, h>.

    Rows come in blocks of 1,024, each from its own generator keyed by (seed, stream, block): P is the same in any order
    and within any budget. P is kept when it fits into `budget` bytes, else drawn again for every call.

    >>> import torch
    >>> from estimators.gradients.projection import Projection
    >>> project = Projection(p=2, k=4096, seed=0, stream=0, dtype=torch.float64, budget=2**20)
    >>> gradients = torch.tensor([[3.0, 4.0], [4.0, -3.0]], dtype=torch.float64)  # of length 5, at a right angle
    >>> projected = project(gradients)
    >>> projected.shape, ((projected @ projected.T).round(decimals=1) + 0.0).tolist()
    (torch.Size([2, 4096]), [[24.8, 0.0], [0.0, 25.2]])
    """

    def __init__(
        self, p: int, k: int, seed: int, stream: int, dtype: torch.dtype, budget: int, kind: Kind = "rademacher"
    ):
        self.p, self.k, self.kind, self.dtype = p, k, kind, dtype
        self.seed, self.stream = seed, stream
        self._kept: list[Tensor] | None = None
        self._keep = p * k * dtype.itemsize <= budget

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return (b, k) from `gradients` (b, p)."""
        import torch

        if self._keep and self._kept is None:
            self._kept = [self._block(index) for index in range(math.ceil(self.p / BLOCK))]
        result = torch.zeros(len(gradients), self.k, dtype=self.dtype)
        for index, part in enumerate(torch.split(gradients, BLOCK, dim=1)):
            result.addmm_(part, self._kept[index] if self._kept is not None else self._block(index))
        return result / math.sqrt(self.k)

    def _block(self, index: int) -> Tensor:
        """Draw rows index * BLOCK and following, unscaled: (at most BLOCK, k)."""
        import torch

        key = np.random.SeedSequence(self.seed, spawn_key=(self.stream, index))
        rng = np.random.Generator(np.random.PCG64(key))
        rows = min(BLOCK, self.p - index * BLOCK)
        if self.kind == "normal":
            return torch.from_numpy(rng.standard_normal((rows, self.k), dtype=np.float32)).to(self.dtype)
        bits = np.frombuffer(rng.bytes(math.ceil(rows * self.k / 8)), np.uint8)
        signs = torch.from_numpy(np.unpackbits(bits, count=rows * self.k)).reshape(rows, self.k)
        return signs.to(self.dtype).mul_(2).sub_(1)
