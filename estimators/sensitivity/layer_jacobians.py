"""Diagonal curvature and prediction variances from the factors of layers: outputs' Jacobians that are hardly ever formed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from estimators.gradients.factors import Factor, Outer, passed_once
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.kept import Kept
from estimators.gradients.layers import Layers
from estimators.gradients.output_losses import OutputLosses, hessians
from estimators.gradients.outputs import flatten
from estimators.gradients.parameter_blocks import ParameterBlock
from estimators.gradients.per_example import gradients, rows_within, slices
from estimators.gradients.recorded_pass import recorded_pass
from workers.data.nested import Nested
from workers.task import GradientTask

BATCH = 2048
"""Most examples in one pass."""


@dataclass(frozen=True)
class Part:
    """Some examples: where they are, their outputs, and the Jacobians of these, block by block of the parameters."""

    where: slice
    outputs: Tensor
    """(b, c)."""
    error: Tensor
    """(b, c), the gradients of their weighted losses in the outputs."""
    curvature: Tensor
    """(b, c, c), the Hessians of the same."""
    jacobians: tuple[OnceJacobian | FormedJacobian, ...]

    def add_squares(self, totals: Sequence[Tensor]) -> None:
        """Add the sum over the examples of diag J_i^T H_i J_i, block by block (out, in)."""
        for jacobian, total in zip(self.jacobians, totals, strict=True):
            jacobian.add_squares(self.curvature, total)

    def variance(self, covariances: Sequence[Tensor]) -> Tensor:
        """Return J_i diag(s) J_i^T (b, c, c) for s block by block (out, in)."""
        found = torch.zeros_like(self.curvature)
        for jacobian, covariance in zip(self.jacobians, covariances, strict=True):
            found += jacobian.variance(covariance)
        return found


@dataclass(frozen=True)
class OnceJacobian:
    """Of a layer that each example passes once: J_c = outputs_c inputs^T, whose squares are products of squares."""

    inputs: Tensor
    """(b, in)."""
    outputs: Tensor
    """(b, c, out)."""

    def add_squares(self, curvature: Tensor, total: Tensor) -> None:
        """Add sum over examples of diag J^T H J, (out, in)."""
        total.addmm_(((curvature @ self.outputs) * self.outputs).sum(1).T, self.inputs.square())

    def turned(self, inner: Tensor, out: Tensor) -> OnceJacobian:
        """Return the Jacobian in the bases of orthogonal matrices (in, in) and (out, out)."""
        return OnceJacobian(self.inputs @ inner, self.outputs @ out)

    def variance(self, covariance: Tensor) -> Tensor:
        """Return J diag(covariance) J^T, (b, c, c)."""
        scales = self.inputs.square() @ covariance.T
        return (self.outputs * scales.unsqueeze(1)) @ self.outputs.mT


@dataclass(frozen=True)
class FormedJacobian:
    """Of any block: as it is."""

    values: Tensor
    """(b, c, out * in)."""

    def add_squares(self, curvature: Tensor, total: Tensor) -> None:
        """Add sum over examples of diag J^T H J, (out, in)."""
        total += ((curvature @ self.values) * self.values).sum((0, 1)).reshape(total.shape)

    def variance(self, covariance: Tensor) -> Tensor:
        """Return J diag(covariance) J^T, (b, c, c)."""
        return (self.values * covariance.flatten()) @ self.values.mT


class LayerJacobians:
    """The Jacobians of a model's outputs on some examples, kept in memory where they take less than half the budget.

    One pass forward, and one back for each output, to what leaves every layer; nothing is drawn, the model is not changed.
    """

    def __init__(self, model: Model, task: GradientTask, examples: Examples, budget: int):
        self.model, self._task, self._examples = model, task, examples
        self._losses = OutputLosses(task, model, examples)
        self.size = self._losses.size
        """c, the number of outputs."""
        few = examples[: min(2, len(examples))]
        pair = Examples.of((few.batch(), torch.ones(len(few), self.size, dtype=model.dtype)), len(few))
        (self._layers,) = Layers.of(model, [(self._inner, pair)])
        held = self._held(examples[:1]) * model.dtype.itemsize
        self._rows = min(BATCH, rows_within(budget // 4, 2 * held))
        self._parts = Kept(self._passed, held * len(examples), budget // 2)

    @property
    def blocks(self) -> tuple[ParameterBlock, ...]:
        """The blocks of parameters."""
        return self._layers.blocks

    def __iter__(self) -> Iterator[Part]:
        return iter(self._parts)

    def gauss_newton_diagonal(self) -> list[Tensor]:
        """Return diag (1/n) sum of w_i J_i^T H_i J_i, block by block (out, in)."""
        some = next(iter(self.model.parameters.values()))
        totals = [some.new_zeros(block.shape) for block in self.blocks]
        for part in self:
            part.add_squares(totals)
        return [total / len(self._examples) for total in totals]

    def by_block(self, flat: Tensor) -> list[Tensor]:
        """Return values of all parameters (p,) block by block (out, in)."""
        tree = self.model.unflatten(flat.unsqueeze(0))
        return [block.gathered(tree)[0] for block in self.blocks]

    def flat(self, values: Sequence[Tensor]) -> Tensor:
        """Return values by block (out, in) in the order of the parameters, (p,)."""
        tree: dict[str, Tensor] = {}
        for block, value in zip(self.blocks, values, strict=True):
            tree |= block.scattered(value.unsqueeze(0), self.model.parameters)
        return self.model.flatten(tree)[0]

    def _inner(self, module: nn.Module, pair: tuple[Nested, Tensor]) -> Tensor:
        batch, rows = pair
        return (flatten(self._task.forward(module, batch)) * rows).sum(1)

    def _held(self, one: Examples) -> int:
        """Return how many numbers one example's Jacobians take."""
        (part,) = self._passed_over(one, 1)
        each = (
            jacobian.inputs.numel() + jacobian.outputs.numel()
            if isinstance(jacobian, OnceJacobian)
            else jacobian.values.numel()
            for jacobian in part.jacobians
        )
        return sum(each) + 2 * self.size**2

    def _passed(self) -> Iterator[Part]:
        return self._passed_over(self._examples, self._rows)

    def _passed_over(self, examples: Examples, rows: int) -> Iterator[Part]:
        for where in slices(len(examples), rows):
            part = examples[where]
            outputs, jacobians = self._differentiated(part)
            error, product = self._losses.derivatives(outputs, part.batch(), part.weights)
            yield Part(where, outputs, error, hessians(product, error), jacobians)

    def _differentiated(self, examples: Examples) -> tuple[Tensor, tuple[OnceJacobian | FormedJacobian, ...]]:
        """Return the outputs (b, c) of some examples, and their Jacobians by block."""
        unweighted = replace(examples, weights=None)
        seen = recorded_pass(
            self.model, lambda module, batch: flatten(self._task.forward(module, batch)), unweighted, self._shared
        )
        found: list[list[Factor]] = [[] for _ in self.blocks]
        for output in range(self.size):
            placed = replace(seen, values=seen.values[:, output]).positions(self._layers.layouts, None)
            for block, factors in zip(self.blocks, found, strict=True):
                if factors and passed_once(factors[0]):
                    # what entered is the same for every output
                    factors.append(Outer(factors[0].parts()[0], placed[block.calls[0]].outputs))
                elif block.calls:
                    factors.append(block.factor(seen.calls, placed, self.model.parameters[block.weight]))
        general = self._general(unweighted)
        made = [
            _joined(factors) if block.calls else FormedJacobian(general[block.weight])
            for block, factors in zip(self.blocks, found, strict=True)
        ]
        return seen.values.detach(), tuple(made)

    @property
    def _shared(self) -> frozenset[int]:
        return frozenset(at for at, one in enumerate(self._layers.layouts) if one is not None and one.axis is None)

    def _general(self, examples: Examples) -> dict[str, Tensor]:
        """Return the Jacobians (b, c, size) of blocks that no layer gives, by the name of their weight."""
        others = [block for block in self.blocks if not block.calls]
        if not others:
            return {}
        model, count = self.model.restricted([name for block in others for name in block.names]), len(examples)
        units = torch.eye(self.size, dtype=self.model.dtype)
        batch = examples.batch()
        each = [
            gradients(model, self._inner, Examples.of((batch, unit.expand(count, -1)), count), 2**62) for unit in units
        ]
        tree = [model.unflatten(one) for one in each]
        return {block.weight: torch.stack([block.gathered(one).flatten(1) for one in tree], 1) for block in others}


def _joined(factors: Sequence[Factor]) -> OnceJacobian | FormedJacobian:
    """Return one block's Jacobian from its factors, an output each."""
    first = factors[0]
    if isinstance(first, Outer) and passed_once(first):
        outputs = [factor.outputs[:, 0] for factor in factors if isinstance(factor, Outer)]
        return OnceJacobian(first.inputs[:, 0], torch.stack(outputs, 1))
    return FormedJacobian(torch.stack([factor.formed().flatten(1) for factor in factors], 1))
