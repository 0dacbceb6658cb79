"""Prediction variances from a Kronecker-factored covariance, from the same Jacobians that a diagonal one is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.gradients.functional_model import Examples, Model
from estimators.sensitivity.equation import Sensitivities
from estimators.sensitivity.layer_jacobians import LayerJacobians, OnceJacobian, Part
from workers.errors import ConfigError
from workers.task import GradientTask


@dataclass(frozen=True)
class _Turned:
    """One layer's covariance 1 / (eigenvalues + damping) in the eigenbasis of its two sides."""

    inner: Tensor
    """(in, in), eigenvectors in columns."""
    out: Tensor
    """(out, out)."""
    covariance: Tensor
    """(out, in)."""

    def variance(self, jacobian: OnceJacobian) -> Tensor:
        """Return J S J^T, (b, c, c)."""
        return jacobian.turned(self.inner, self.out).variance(self.covariance)


def by_layers(model: Model, task: GradientTask, examples: Examples, damping: float, budget: int) -> Sensitivities:
    """Return the sensitivities of n examples with n S = (K-FAC + damping I)^-1, layer by layer.

    K-FAC is the product of the mean of x x^T, x what enters the layer (with a 1 for the bias), and the mean of D^T H_i D, D the
    outputs' gradients in what leaves it (Martens and Grosse 2015; the expectation over targets is exact). Layers that an
    example passes at several positions, and parameters of no layer, have their diagonal instead. Raises ConfigError for a
    damping that is not above 0.
    """
    if not damping > 0:
        raise ConfigError(f"a covariance by layers needs a damping above 0, found {damping:g}")
    jacobians = LayerJacobians(model, task, examples, budget)
    diagonals = [1 / (value + damping) for value in jacobians.gauss_newton_diagonal()]
    turned = _fitted(jacobians, len(examples), damping)
    parts = [(part.outputs, part.error, _variance(part, turned, diagonals)) for part in jacobians]
    outputs, errors, variances = (torch.cat(each) for each in zip(*parts, strict=True))
    return Sensitivities(outputs, errors, variances / len(examples))


def _variance(part: Part, turned: list[_Turned | None], diagonals: list[Tensor]) -> Tensor:
    found = torch.zeros_like(part.curvature)
    for jacobian, layer, diagonal in zip(part.jacobians, turned, diagonals, strict=True):
        if layer is not None and isinstance(jacobian, OnceJacobian):
            found += layer.variance(jacobian)
        else:
            found += jacobian.variance(diagonal)
    return found


def _fitted(jacobians: LayerJacobians, n: int, damping: float) -> list[_Turned | None]:
    """Return every layer's covariance in its eigenbasis; None where an example passes it at several positions."""
    some = next(iter(jacobians.model.parameters.values()))
    inner = [some.new_zeros(block.shape[1], block.shape[1]) for block in jacobians.blocks]
    out = [some.new_zeros(block.shape[0], block.shape[0]) for block in jacobians.blocks]
    once = [False] * len(inner)
    for part in jacobians:
        for at, jacobian in enumerate(part.jacobians):
            if isinstance(jacobian, OnceJacobian):
                once[at] = True
                inner[at].addmm_(jacobian.inputs.T, jacobian.inputs)
                curved = (part.curvature @ jacobian.outputs).flatten(0, 1)
                out[at].addmm_(jacobian.outputs.flatten(0, 1).T, curved)
    return [_eigen(a / n, s / n, damping) if used else None for a, s, used in zip(inner, out, once, strict=True)]


def _eigen(inner: Tensor, out: Tensor, damping: float) -> _Turned:
    sides = [torch.linalg.eigh((side + side.T).double() / 2) for side in (inner, out)]
    (low, into), (high, outof) = [(values.clamp(min=0).to(inner.dtype), rows.to(inner.dtype)) for values, rows in sides]
    return _Turned(into, outof, 1 / (torch.outer(high, low) + damping))
