"""Directions of gradients: each of length 1, as a whole or layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.gradients.factors import Factor, scaled, squared_norms
from estimators.gradients.parameter_blocks import ParameterBlock


def normalized(rows: Tensor, parts: Sequence[slice]) -> Tensor:
    """Return `rows` (b, p) with every part of every row of length 1, in place; a part of zeros stays zeros.

    A row is divided by its largest entry first: gradients of well-fitted examples are so small that their squares vanish.
    """
    for part in parts:
        columns = rows[:, part]
        columns /= _or_one(columns.abs().amax(1, keepdim=True))
        columns /= _or_one(columns.norm(dim=1, keepdim=True))
    return rows


def _or_one(lengths: Tensor) -> Tensor:
    return torch.where(lengths > 0, lengths, 1.0)


def directions(blocks: Sequence[ParameterBlock], factors: list[Factor]) -> list[Factor]:
    """Return the gradients of a batch with length 1, all blocks together; those of zeros stay zeros."""
    # As above: divided by their largest numbers first.
    largest = torch.stack([_largest(factor) for factor in factors]).amax(0)
    factors = [scaled(factor, 1 / _or_one(largest)) for factor in factors]
    squares = torch.stack([squared_norms(factor) for factor in factors]).sum(0)
    return [scaled(factor, 1 / _or_one(squares.sqrt())) for factor in factors]


def directions_by_layer(blocks: Sequence[ParameterBlock], factors: list[Factor]) -> list[Factor]:
    """Return the gradients of a batch with length 1 layer by layer: the parameters of one module together."""
    owners = [block.weight.rpartition(".")[0] for block in blocks]
    found = list(factors)
    for owner in dict.fromkeys(owners):
        places = [place for place, one in enumerate(owners) if one == owner]
        turned = directions([blocks[place] for place in places], [factors[place] for place in places])
        for place, factor in zip(places, turned, strict=True):
            found[place] = factor
    return found


def _largest(factor: Factor) -> Tensor:
    """Return the largest entry of what left a layer, or of the gradient as it is, (b,)."""
    return factor.parts()[-1].flatten(1).abs().amax(1)
