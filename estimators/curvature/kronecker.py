"""Curvature that is a Kronecker product layer by layer, in an eigenbasis: K-FAC, and EK-FAC, which corrects the eigenvalues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from estimators.curvature.operator import Invertible, Rows
from estimators.gradients.factors import EmbeddingRows, Factor, Formed, Outer, passed_once
from estimators.gradients.functional_model import Model
from estimators.gradients.parameter_blocks import ParameterBlock

FORMED_UP_TO = 2048
"""Parameters of a block without factors up to which its matrix is formed; beyond it its diagonal stands for it."""


@dataclass(frozen=True)
class Basis:
    """One block's curvature Q diag(eigenvalues) Q^T, with Q the Kronecker product of two orthogonal matrices."""

    out: Tensor | None
    """(out, out), eigenvectors in columns; None for the identity."""
    inner: Tensor | None
    """(in, in)."""
    eigenvalues: Tensor
    """(out, in)."""

    def turned(self, factor: Factor) -> Factor:
        """Return gradients in the basis: Q_out^T G Q_in, formed first where turning every position is more work."""
        if isinstance(factor, Outer) and not _forming_pays(factor):
            return Outer(_times(factor.inputs, self.inner), _times(factor.outputs, self.out))
        if isinstance(factor, EmbeddingRows):
            return EmbeddingRows(factor.tokens, _times(factor.outputs, self.inner), factor.out)
        return Formed(self.into(factor.formed()))

    def into(self, matrices: Tensor) -> Tensor:
        """Return Q_out^T M Q_in for M (r, out, in)."""
        turned = _times(matrices, self.inner)
        return turned if self.out is None else self.out.T @ turned

    def back(self, matrices: Tensor) -> Tensor:
        """Return Q_out M Q_in^T for M (r, out, in)."""
        turned = matrices if self.inner is None else matrices @ self.inner.T
        return turned if self.out is None else self.out @ turned

    def reached_from(self, other: Basis) -> Basis:
        """Return the turn whose `back` takes what is in another basis of the same block into this one."""
        return Basis(_turn(self.out, other.out), _turn(self.inner, other.inner), other.eigenvalues)

    def squared(self) -> Basis:
        """Return the squares of the eigenvectors' entries: they take a diagonal from one basis to the other."""
        return Basis(_squared(self.out), _squared(self.inner), self.eigenvalues)


class KroneckerFactored(Invertible):
    """A curvature that is block by layer, each block a Kronecker product of the layer's two sides in an eigenbasis.

    The parameters of a layer y = W x (with a bias as W's last column) have the gradient sum over positions of g x^T. With A the
    mean of x x^T over examples and positions and S the mean over examples of the sum over positions of g g^T, both of
    pseudo-gradients g, K-FAC takes S (x) A for the Gauss-Newton matrix of W (Martens and Grosse 2015, with homogeneous
    coordinates; for shared weights Eschenhagen et al. 2023, "expand"; convolutions: Grosse and Martens 2016). EK-FAC keeps the
    eigenvectors and takes for each eigenvalue the mean square of the gradients along its eigenvector, which is the best diagonal
    in that basis (George et al. 2018). An embedding's A is diagonal, the frequencies of its tokens. Parameters without such
    factors (normalizations, and what no layer is known to use) have their own second moment, formed up to 2,048 parameters, else
    its diagonal.
    """

    def __init__(self, model: Model, blocks: Sequence[ParameterBlock], bases: Sequence[Basis]):
        self.model, self.blocks, self.bases = model, tuple(blocks), tuple(bases)
        self.p, self.dtype = model.p, model.dtype

    @property
    def device(self) -> torch.device:
        """That of the model's parameters."""
        return self.bases[0].eigenvalues.device

    def with_eigenvalues(self, eigenvalues: Sequence[Tensor]) -> KroneckerFactored:
        """Return the same eigenvectors with other eigenvalues, (out, in) a block."""
        pairs = zip(self.bases, eigenvalues, strict=True)
        return KroneckerFactored(
            self.model, self.blocks, [replace(basis, eigenvalues=values) for basis, values in pairs]
        )

    def product(self, rows: Tensor) -> Tensor:
        """Return the rows A v, (r, p)."""
        return self._mapped(rows, lambda values: values)

    def inverse(self, damping: float) -> Rows:
        """Return the map of rows v -> (A + damping I)^-1 v."""
        return lambda rows: self._mapped(rows, lambda values: 1 / (values + damping))

    def root(self) -> Rows:
        """Return the map of rows v -> A^(1/2) v."""
        return lambda rows: self._mapped(rows, torch.sqrt)

    def trace(self) -> float:
        """Return tr A."""
        return float(sum(basis.eigenvalues.double().sum() for basis in self.bases))

    def diagonal(self) -> Tensor:
        """Return diag A, (p,) float64."""
        tree: dict[str, Tensor] = {}
        for block, basis in zip(self.blocks, self.bases, strict=True):
            tree |= block.scattered(basis.squared().back(basis.eigenvalues.unsqueeze(0)), self.model.parameters)
        return self.model.flatten(tree)[0].double()

    def _mapped(self, rows: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        tree = self.model.unflatten(rows)
        done: dict[str, Tensor] = {}
        for block, basis in zip(self.blocks, self.bases, strict=True):
            inside = basis.into(block.gathered(tree)) * change(basis.eigenvalues)
            done |= block.scattered(basis.back(inside), self.model.parameters)
        return self.model.flatten(done)


def _forming_pays(factor: Outer) -> bool:
    """Say whether a gradient at many positions is turned with less work once it is formed."""
    positions, inner, out = factor.inputs.shape[1], factor.inputs.shape[2], factor.outputs.shape[2]
    return positions * (inner**2 + out**2) > positions * inner * out + inner * out * (inner + out)


def squares(factor: Factor) -> Tensor:
    """Return the sum over examples of the squares of their gradients, (out, in)."""
    if isinstance(factor, Outer) and passed_once(factor):
        return factor.outputs[:, 0].square().T @ factor.inputs[:, 0].square()
    return factor.formed().square().sum(0)


def _times(values: Tensor, basis: Tensor | None) -> Tensor:
    return values if basis is None else values @ basis


def _turn(onto: Tensor | None, of: Tensor | None) -> Tensor | None:
    """Return Q^T P for the bases Q and P of one side, either of them None for the identity."""
    if onto is None or of is None:
        return of if onto is None else onto.T
    return onto.T @ of


def _squared(basis: Tensor | None) -> Tensor | None:
    return None if basis is None else basis.square()
