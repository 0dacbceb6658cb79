"""The two sides of every layer's Kronecker product, from the factors of pseudo-gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from estimators.curvature.kronecker import FORMED_UP_TO, Basis, KroneckerFactored, squares
from estimators.curvature.pseudo_gradients import PseudoGradients
from estimators.gradients.factors import EmbeddingRows, Factor, Outer
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.kept import Kept
from estimators.gradients.layers import Layers
from estimators.gradients.parameter_blocks import ParameterBlock
from workers.errors import DivergedError
from workers.task import GradientTask

DRAWS = 8
"""Targets an example for a preconditioner: they cost little beside the products that they save."""


@dataclass
class _Sides:
    """Sums that make up one block's two sides."""

    out: Tensor
    """(out, out), or a diagonal (out,)."""
    inner: Tensor
    positions: int = 0

    @classmethod
    def of(cls, block: ParameterBlock, like: Tensor) -> _Sides:
        out, inner = block.shape
        zeros = like.new_zeros
        if block.form == "outer":
            return cls(zeros(out, out), zeros(inner, inner))
        if block.form == "rows":
            return cls(zeros(out), zeros(inner, inner))
        return cls(like.new_ones(1), zeros(inner, inner) if inner <= FORMED_UP_TO else zeros(inner))

    def add(self, factor: Factor) -> None:
        """Add the factors of some examples."""
        if isinstance(factor, Outer):
            inputs, outputs = factor.inputs.flatten(0, 1), factor.outputs.flatten(0, 1)
            self.inner.addmm_(inputs.T, inputs)
            self.out.addmm_(outputs.T, outputs)
            self.positions += len(inputs)
        elif isinstance(factor, EmbeddingRows):
            outputs = factor.outputs.flatten(0, 1)
            self.out += torch.bincount(factor.tokens.flatten(), minlength=factor.out)
            self.inner.addmm_(outputs.T, outputs)
            self.positions += len(outputs)
        else:
            values = factor.formed().flatten(1)
            self.inner += values.T @ values if self.inner.ndim == 2 else values.square().sum(0)
            self.positions += len(values)

    def add_shampoo(self, factor: Factor) -> None:
        """Add G G^T and G^T G of some examples, where K-FAC adds what enters and what leaves."""
        if not isinstance(factor, Outer):
            return self.add(factor)
        inputs, outputs = factor.inputs, factor.outputs
        # G = sum over positions of g x^T, so G G^T = D^T (X X^T) D: by pairs of positions.
        self.out += (outputs.mT @ (inputs @ (inputs.mT @ outputs))).sum(0)
        self.inner += (inputs.mT @ (outputs @ (outputs.mT @ inputs))).sum(0)
        self.positions += inputs.shape[0] * inputs.shape[1]
        return None

    def basis(self, block: ParameterBlock, n: int) -> Basis:
        """Return the eigenbasis of the block, with the products of the sides' eigenvalues."""
        # One side is a mean over positions, the other over examples (which is which does not matter): their product is then
        # the mean over examples of what independent positions and sides would give.
        out_values, out = _eigen(self.out / (1 if block.form == "formed" else n))
        inner_values, inner = _eigen(self.inner / self.positions)
        return Basis(out, inner, torch.outer(out_values, inner_values))


class GradientSource(Protocol):
    """Gradients whose second moment is a curvature."""

    @property
    def count(self) -> int:
        """Number of gradients."""

    def batches(self, layers: Layers, rows: int) -> Iterator[list[Factor]]:
        """Yield them, at most `rows` examples at a time, the same at every call."""

    def few(self) -> Examples:
        """Return examples to try them on."""


class Fit:
    """A curvature's fits on the gradients of one model; these are kept in memory where they fit, else found again.

    `layers` are those of the source's objective, `budget` is in bytes.
    """

    def __init__(self, layers: Layers, source: GradientSource, budget: int):
        self._layers, self._n = layers, source.count
        rows = layers.rows(source.few(), budget // 2)
        held = sum(factor.held for factor in layers.factors(source.few()[:1])) * layers.model.dtype.itemsize
        self._batches = Kept(lambda: source.batches(layers, rows), held * source.count, budget // 2)

    def kfac(self) -> KroneckerFactored:
        """Return K-FAC's curvature (Martens and Grosse 2015)."""
        return self._fitted(_Sides.add)

    def shampoo(self) -> KroneckerFactored:
        """Return the eigenvectors of Shampoo's two sides (Gupta et al. 2018); its eigenvalues are to be corrected."""
        return self._fitted(_Sides.add_shampoo)

    def corrected(self, curvature: KroneckerFactored) -> KroneckerFactored:
        """Return the same eigenvectors, each with the mean square of the gradients along it (George et al. 2018)."""
        totals = [torch.zeros_like(basis.eigenvalues) for basis in curvature.bases]
        for factors in self._batches:
            for factor, basis, total in zip(factors, curvature.bases, totals, strict=True):
                total += squares(basis.turned(factor))
        return curvature.with_eigenvalues([total / self._n for total in totals])

    def _fitted(self, add: Callable[[_Sides, Factor], None]) -> KroneckerFactored:
        model, blocks = self._layers.model, self._layers.blocks
        return KroneckerFactored(model, blocks, _bases(blocks, self._batches, self._n, add))


def kfac_bases(blocks: Sequence[ParameterBlock], batches: Iterable[Sequence[Factor]], count: int) -> list[Basis]:
    """Return K-FAC's eigenbasis of every block, from batches of `count` gradients in all."""
    return _bases(blocks, batches, count, _Sides.add)


def _bases(
    blocks: Sequence[ParameterBlock],
    batches: Iterable[Sequence[Factor]],
    count: int,
    add: Callable[[_Sides, Factor], None],
) -> list[Basis]:
    sides: list[_Sides] = []
    for factors in batches:
        sides = sides or [_Sides.of(block, factor.parts()[-1]) for block, factor in zip(blocks, factors, strict=True)]
        for side, factor in zip(sides, factors, strict=True):
            add(side, factor)
    return [side.basis(block, count) for side, block in zip(sides, blocks, strict=True)]


def ekfac(
    model: Model, task: GradientTask, examples: Examples, seed: int, budget: int, samples: int = DRAWS
) -> KroneckerFactored:
    """Return EK-FAC's curvature of a model, from `samples` targets an example: a preconditioner for what it approximates."""
    source = PseudoGradients(model, task, examples, seed, samples=samples)
    (layers,) = Layers.of(model, [(source.objective, source.few())])
    fit = Fit(layers, source, budget)
    return fit.corrected(fit.kfac())


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return eigenvalues and eigenvectors of a matrix, in float64 arithmetic; of a diagonal (k,) itself, and no vectors.

    Raises DivergedError for what is not finite.
    """
    if not bool(torch.isfinite(matrix).all()):
        raise DivergedError("a curvature is not finite: the reference model diverged")
    if matrix.ndim == 1:
        return matrix, None
    values, vectors = torch.linalg.eigh(matrix.double())
    return values.clamp(min=0).to(matrix.dtype), vectors.to(matrix.dtype)
