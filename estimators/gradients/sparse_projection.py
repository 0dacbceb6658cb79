"""Sparse random projection of gradients: some coordinates are kept, and added up, with random signs, in few numbers."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor

_STREAM = zlib.crc32(b"estimators.sparse_projection")
KEPT = 4
"""Coordinates kept for every dimension of the result (GraSS: Hu et al. 2025, section 4, k' = 4 k)."""


class SparseProjection:
    """The map g -> g P of GraSS (Hu et al. 2025, section 3): a random mask, then a sparse Johnson-Lindenstrauss transform.

    Of p coordinates `kept` (by default 4 k, at most p) are chosen without repetition, the same for all gradients. Each is
    multiplied by a random sign and added to one of k numbers, chosen at random: the sparse transform with one entry a coordinate
    (Dasgupta, Kumar and Sarlos 2010). Multiplied by sqrt(p / kept), inner products are kept in expectation, E <gP, hP> = <g, h>.
    Costs `kept` additions a gradient, whatever k. Everything is drawn from (seed, stream, block).

    >>> import torch
    >>> from estimators.gradients.sparse_projection import SparseProjection
    >>> project = SparseProjection(p=3, k=2, seed=0, stream=0, dtype=torch.float64)
    >>> project.matrix().tolist()  # nothing is masked: one sign a row
    [[0.0, 1.0], [1.0, 0.0], [0.0, -1.0]]
    >>> project(torch.tensor([[3.0, 4.0, 5.0]], dtype=torch.float64)).tolist()
    [[4.0, -2.0]]
    """

    def __init__(
        self, p: int, k: int, seed: int, stream: int, dtype: torch.dtype, kept: int | None = None, block: int = 0
    ):
        self.p, self.k, self.dtype = p, k, dtype
        self.kind, self.seed, self.stream = "sparse", seed, stream
        kept = min(p, KEPT * k if kept is None else kept)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_STREAM, stream, block))))
        places = np.arange(p) if kept == p else np.sort(rng.choice(p, kept, replace=False))
        signs = rng.integers(0, 2, kept) * 2.0 - 1
        self._places = torch.from_numpy(places)
        self._factors = torch.from_numpy(signs * math.sqrt(p / kept)).to(dtype)
        self._targets = torch.from_numpy(rng.integers(0, k, kept))

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return (b, k) from `gradients` (b, p)."""
        places, factors, targets = (one.to(gradients.device) for one in (self._places, self._factors, self._targets))
        chosen = gradients if len(places) == self.p else gradients[:, places]
        result = torch.zeros(len(gradients), self.k, dtype=self.dtype, device=gradients.device)
        return result.index_add_(1, targets, chosen * factors)

    def matrix(self) -> Tensor:
        """Return P, (p, k)."""
        return self(torch.eye(self.p, dtype=self.dtype))
