"""Projections of gradients layer by layer, each side of a layer by a matrix of its own: no gradient is formed for them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from estimators.gradients.factors import EmbeddingRows, Factor, Formed, Outer
from estimators.gradients.parameter_blocks import ParameterBlock
from workers.errors import ConfigError

_STREAM = zlib.crc32(b"estimators.factored_projection")


@dataclass(frozen=True)
class Side:
    """What one side of a layer is multiplied with: (size, k); None for the side as it is."""

    matrix: Tensor | None

    def of(self, values: Tensor) -> Tensor:
        """Return (..., k) from values (..., size)."""
        return values if self.matrix is None else values @ self.matrix

    def rows(self, tokens: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        """Return the rows (..., k) of tokens, which stand for unit vectors of `size`."""
        matrix = torch.eye(size, dtype=dtype, device=tokens.device) if self.matrix is None else self.matrix
        return matrix[tokens]

    def dimensions(self, size: int) -> int:
        """Return k, for a side of `size`."""
        return size if self.matrix is None else self.matrix.shape[1]


@dataclass(frozen=True)
class Picked(Side):
    """A side of which some entries are kept, each times one factor: `places` (k,) int64."""

    places: Tensor
    factor: float

    def of(self, values: Tensor) -> Tensor:
        """Return (..., k) from values (..., size)."""
        return self.factor * values[..., self.places.to(values.device)]

    def rows(self, tokens: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        """Return the rows (..., k) of tokens, which stand for unit vectors of `size`."""
        return self.factor * (tokens.unsqueeze(-1) == self.places.to(tokens.device)).to(dtype)

    def dimensions(self, size: int) -> int:
        """Return k."""
        return len(self.places)


@dataclass(frozen=True)
class FactoredProjection:
    """The map of gradient matrices G (out, in) to P_out^T G P_in (k_out, k_in) of every block, side by side (b, k).

    LoGra's (Choe et al. 2024, section 3.1): for a sum of outer products the two sides are projected, and their products are
    small. Random sides have independent normal entries of variance 1 / k_side, so that inner products are kept in expectation;
    a side that is not larger than its k is left as it is. Gradients that are kept as they are have one side.
    """

    blocks: tuple[ParameterBlock, ...]
    sides: tuple[tuple[Side, Side], ...]
    """Of what leaves and of what enters, block by block."""

    @classmethod
    def random(
        cls,
        blocks: Sequence[ParameterBlock],
        ranks: Sequence[tuple[int, int]],
        seed: int,
        stream: int,
        dtype: torch.dtype,
    ) -> FactoredProjection:
        """Draw the sides of every block: `ranks` are its k_out and k_in."""
        made = []
        for at, (block, wanted) in enumerate(zip(blocks, ranks, strict=True)):
            sides = []
            for which, (size, k) in enumerate(zip(block.shape, wanted, strict=True)):
                key = np.random.SeedSequence(seed, spawn_key=(_STREAM, stream, at, which))
                sides.append(Side(None if k >= size else _normal(size, k, key).to(dtype)))
            made.append((sides[0], sides[1]))
        return cls(tuple(blocks), tuple(made))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Dimensions of every block's part, k_out k_in."""
        return tuple(
            math.prod(side.dimensions(size) for side, size in zip(sides, block.shape, strict=True))
            for block, sides in zip(self.blocks, self.sides, strict=True)
        )

    @property
    def k(self) -> int:
        """Dimensions in all."""
        return sum(self.sizes)

    @property
    def projected(self) -> tuple[ParameterBlock, ...]:
        """The blocks as they are after it, (k_out, k_in), with gradients in factors where they were."""
        found = []
        for block, pair in zip(self.blocks, self.sides, strict=True):
            out, inner = (side.dimensions(size) for side, size in zip(pair, block.shape, strict=True))
            found.append(replace(block, form="formed" if block.form == "formed" else "outer", shape=(out, inner)))
        return tuple(found)

    def factors(self, factors: Sequence[Factor]) -> list[Outer | Formed]:
        """Return the projected gradients of some examples in the factors that they have, (b, k_out, k_in) when formed."""
        triples = zip(factors, self.sides, self.blocks, strict=True)
        return [_projected(factor, *sides, block) for factor, sides, block in triples]

    def parts(self, factors: Sequence[Factor]) -> list[Tensor]:
        """Return the projected gradients of some examples, (b, k_out k_in) a block."""
        return [factor.formed().flatten(1) for factor in self.factors(factors)]

    def __call__(self, factors: Sequence[Factor]) -> Tensor:
        """Return the projected gradients of some examples, (b, k)."""
        return torch.cat(self.parts(factors), dim=1)


def equal_ranks(blocks: Sequence[ParameterBlock], rank: int) -> list[tuple[int, int]]:
    """Return `rank` for each side of every block, and rank x rank for what has one side."""
    return [(rank, rank) if block.form != "formed" else (1, rank * rank) for block in blocks]


def ranks_within(blocks: Sequence[ParameterBlock], k: int) -> list[tuple[int, int]]:
    """Return ranks that make up at most `k` dimensions in all, the same for every side, as large as that allows.

    A side that is smaller than the rank takes its size, and leaves the room to others. Raises ConfigError where one dimension a
    block is too many.
    """
    if len(blocks) > k:
        raise ConfigError(f"{len(blocks)} layers are projected to a dimension each at least, found project_dim {k}")

    def total(rank: int) -> int:
        ranks = equal_ranks(blocks, rank)
        pairs = zip(blocks, ranks, strict=True)
        return sum(min(one, block.shape[0]) * min(other, block.shape[1]) for block, (one, other) in pairs)

    low, high = 1, max(max(block.shape) for block in blocks)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if total(middle) <= k else (low, middle - 1)
    return equal_ranks(blocks, low)


def _projected(factor: Factor, out: Side, inner: Side, block: ParameterBlock) -> Outer | Formed:
    """Return P_out^T G P_in, (b, k_out, k_in) when formed."""
    if isinstance(factor, Outer):
        return Outer(inner.of(factor.inputs), out.of(factor.outputs))
    if isinstance(factor, EmbeddingRows):
        entered = inner.of(factor.outputs)
        return Outer(entered, out.rows(factor.tokens, block.shape[0], entered.dtype))
    assert isinstance(factor, Formed)
    return Formed(out.of(inner.of(factor.values).mT).mT)


def _normal(size: int, k: int, key: np.random.SeedSequence) -> Tensor:
    rng = np.random.Generator(np.random.PCG64(key))
    return torch.from_numpy(rng.standard_normal((size, k)) / math.sqrt(k))
