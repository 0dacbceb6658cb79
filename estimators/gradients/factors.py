"""Gradients of single examples in the form that layers give them: sums of outer products, which need not be formed.

A linear map y = W x that an example passes at s positions has the gradient sum over s of (gradient of y_s) x_s^T in W. Inner
products of such gradients, and whatever is a product with them, follow from the 2 s vectors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PAIRS_AT_ONCE = 2**24
"""Pairs of positions of two sets of examples that are looked at together."""


class Factor(ABC):
    """The gradients of b examples in one block of parameters, (b, out, in) when formed."""

    def __len__(self) -> int:
        return len(self.parts()[0])

    @abstractmethod
    def parts(self) -> tuple[Tensor, ...]:
        """Return the tensors that it is made of, (b, ...) each."""

    @abstractmethod
    def formed(self) -> Tensor:
        """Return the gradients, (b, out, in)."""

    @abstractmethod
    def take(self, where: slice) -> Factor:
        """Return those of some of the examples."""

    @property
    def held(self) -> int:
        """Numbers held for one example."""
        return sum(part[0].numel() for part in self.parts())


@dataclass(frozen=True)
class Formed(Factor):
    """Gradients as they are."""

    values: Tensor
    """(b, out, in)."""

    def parts(self) -> tuple[Tensor, ...]:
        """Return the gradients."""
        return (self.values,)

    def formed(self) -> Tensor:
        """Return the gradients."""
        return self.values

    def take(self, where: slice) -> Formed:
        """Return those of some of the examples."""
        return Formed(self.values[where])


@dataclass(frozen=True)
class Outer(Factor):
    """Sums over positions of `outputs` `inputs`^T."""

    inputs: Tensor
    """(b, s, in): what entered, with a last column of ones where the block has a bias."""
    outputs: Tensor
    """(b, s, out): the gradients of what left."""

    def parts(self) -> tuple[Tensor, ...]:
        """Return inputs and gradients of the outputs."""
        return self.inputs, self.outputs

    def formed(self) -> Tensor:
        """Return the gradients, (b, out, in)."""
        return torch.bmm(self.outputs.mT, self.inputs)

    def take(self, where: slice) -> Outer:
        """Return those of some of the examples."""
        return Outer(self.inputs[where], self.outputs[where])

    def joined(self, other: Outer) -> Outer:
        """Return the sums over the positions of both: gradients of a layer that is passed twice."""
        return Outer(torch.cat([self.inputs, other.inputs], 1), torch.cat([self.outputs, other.outputs], 1))


@dataclass(frozen=True)
class EmbeddingRows(Factor):
    """Sums over positions of `outputs`, each added to the row that a token names: gradients of an embedding."""

    tokens: Tensor
    """(b, s) int64."""
    outputs: Tensor
    """(b, s, in)."""
    out: int
    """Number of rows."""

    def parts(self) -> tuple[Tensor, ...]:
        """Return tokens and gradients of the outputs."""
        return self.tokens, self.outputs

    def formed(self) -> Tensor:
        """Return the gradients, (b, out, in)."""
        count, _, width = self.outputs.shape
        total = self.outputs.new_zeros(count, self.out, width)
        return total.scatter_add_(1, self.tokens.unsqueeze(2).expand_as(self.outputs), self.outputs)

    def take(self, where: slice) -> EmbeddingRows:
        """Return those of some of the examples."""
        return EmbeddingRows(self.tokens[where], self.outputs[where], self.out)

    def as_outer(self) -> Outer:
        """Return the same as outer products with unit vectors."""
        units = torch.nn.functional.one_hot(self.tokens, self.out).to(self.outputs.dtype)
        return Outer(self.outputs, units)


def scaled(factor: Factor, by: Tensor) -> Factor:
    """Return the gradients times a number an example, `by` (b,)."""
    if isinstance(factor, Formed):
        return Formed(factor.values * by[:, None, None])
    assert isinstance(factor, Outer | EmbeddingRows)
    return replace(factor, outputs=factor.outputs * by[:, None, None])


def squared_norms(factor: Factor) -> Tensor:
    """Return the squared length of every gradient, (b,)."""
    if isinstance(factor, Outer) and passed_once(factor):
        return factor.inputs[:, 0].square().sum(1) * factor.outputs[:, 0].square().sum(1)
    return factor.formed().square().sum((1, 2))


def passed_once(factor: Factor) -> bool:
    """Say whether every example passes the layer at one position: its gradients then have rank 1, and are never formed."""
    return isinstance(factor, Outer) and factor.inputs.shape[1] == 1


def contracted(factor: Factor, matrices: Tensor) -> Tensor:
    """Return <gradient of example b, matrix r>, (b, r), for `matrices` (r, out, in)."""
    if isinstance(factor, Outer) and passed_once(factor):
        found = factor.inputs[:, 0] @ matrices.flatten(0, 1).T  # (b, r x out)
        return torch.bmm(found.reshape(len(found), *matrices.shape[:2]), factor.outputs[:, 0, :, None]).squeeze(2)
    return factor.formed().flatten(1) @ matrices.flatten(1).T


def inner_products(left: Factor, right: Factor) -> Tensor:
    """Return <gradient of a, gradient of b> for every a of `left` (b,) and b of `right` (t,): (b, t).

    From the factors where that is less work: for one position, 2 (in + out) operations a pair instead of 2 in out.
    """
    if isinstance(left, Formed) or isinstance(right, Formed) or not _pays(left, right):
        return left.formed().flatten(1) @ right.formed().flatten(1).T
    pairs = left.parts()[0].shape[1] * right.parts()[0].shape[1] * len(right)
    rows = max(1, PAIRS_AT_ONCE // pairs)
    parts = [_by_positions(left.take(slice(at, at + rows)), right) for at in range(0, len(left), rows)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _pays(left: Factor, right: Factor) -> bool:
    """Say whether inner products by pairs of positions are less work than by gradients that are formed."""
    if isinstance(left, EmbeddingRows) and isinstance(right, EmbeddingRows):
        pairs = left.outputs.shape[1] * right.outputs.shape[1]
        return pairs * (left.outputs.shape[2] + 2) < left.out * left.outputs.shape[2]
    if not isinstance(left, Outer) or not isinstance(right, Outer):
        return False
    inner, out = left.inputs.shape[2], left.outputs.shape[2]
    one, other = left.outputs.shape[1], right.outputs.shape[1]
    forming = one / max(1, len(right)) + other / max(1, len(left))
    return one * other * (inner + out) < (1 + forming) * inner * out


def _by_positions(left: Factor, right: Factor) -> Tensor:
    """Return the sum over pairs of positions of (entered_s . entered_r) (left_s . left_r), (b, t)."""
    if isinstance(left, EmbeddingRows) and isinstance(right, EmbeddingRows):
        found = left.outputs.flatten(0, 1) @ right.outputs.flatten(0, 1).T
        found *= left.tokens.flatten()[:, None] == right.tokens.flatten()[None, :]
    else:
        assert isinstance(left, Outer)
        assert isinstance(right, Outer)
        found = left.inputs.flatten(0, 1) @ right.inputs.flatten(0, 1).T
        found *= left.outputs.flatten(0, 1) @ right.outputs.flatten(0, 1).T
    one, other = left.parts()[0].shape[1], right.parts()[0].shape[1]
    if one == other == 1:
        return found
    return found.reshape(len(left), one, len(right), other).sum((1, 3))
