"""Gradients whose second moment is the Gauss-Newton matrix: of the loss at targets that the model itself might have drawn."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from estimators.curvature.gauss_newton import GaussNewton
from estimators.gradients.factors import Factor
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from estimators.gradients.outputs import flatten
from estimators.gradients.per_example import slices
from workers.data.nested import Nested
from workers.errors import ConfigError
from workers.task import GradientTask

DRAWN_TOGETHER = 512
"""Examples whose random numbers come from one generator; part of what is drawn, whatever the memory."""
HESSIAN_UP_TO = 512
"""Outputs an example up to which the Hessian of the loss in them is formed, where a task draws no targets."""
_STREAM = zlib.crc32(b"estimators.pseudo_gradients")


@dataclass(frozen=True)
class OutputGradients:
    """Gradients of <outputs, v>, with a v (c,) beside each example that comes from the Hessian H_i of its loss in the outputs."""

    model: Model
    task: GradientTask
    examples: Examples

    def objective(self, module: nn.Module, pair: tuple[Nested, Tensor]) -> Tensor:
        """Return <outputs, v>, (b,), for a batch and v (b, c)."""
        batch, beside = pair
        return (flatten(self.task.forward(module, batch)) * beside).sum(1)

    def outputs(self, batch: Nested) -> Nested:
        """Return what the module returns for a batch."""
        with torch.no_grad():
            found: Nested = self.model.value(
                self.model.parameters, lambda module, held: self.task.forward(module, held), batch
            )
        return found

    def output_curvature(self, size: int, batch: Nested) -> tuple[Tensor, Tensor]:
        """Return eigenvalues (b, c) and eigenvectors (b, c, c), in columns, of H_i. Raises ConfigError for a large `size` c."""
        if size > HESSIAN_UP_TO:
            raise ConfigError(
                f"the module has {size} outputs an example, too many to form the Hessian of the loss in them (expected at most "
                f"{HESSIAN_UP_TO}): give the task `sampled_output_gradients(outputs, batch, rng)`, or use fisher: empirical"
            )
        curvature = GaussNewton(self.model, self.task, self.examples, budget=2**62)
        return curvature.output_curvature(batch, None)


@dataclass(frozen=True)
class PseudoGradients(OutputGradients):
    """For every training example the gradient of <outputs, v>, with v random of mean 0 and covariance w_i H_i.

    H_i is the Hessian of the loss in the outputs and w_i the example's weight, so that the second moment of these gradients, over
    examples and draws, is the Gauss-Newton matrix; for losses that are negative log-likelihoods also the Fisher information
    (Kunstner et al. 2019; Martens 2020). `samples` draws an example, always the same for a seed and a stream.
    """

    seed: int
    stream: int = 0
    samples: int = 1

    @property
    def count(self) -> int:
        """Number of gradients: draws of all examples."""
        return len(self.examples) * self.samples

    def few(self) -> Examples:
        """Return examples to try the objective on. Raises ConfigError for outputs that are too many to draw v for."""
        return self._drawn(self.examples[: min(2, len(self.examples))], self._generator(0, 0))

    def batches(self, layers: Layers, rows: int) -> Iterator[list[Factor]]:
        """Yield the pseudo-gradients of all examples in their order, at most `rows` at a time, draw by draw.

        `layers` are the objective's.
        """
        for sample in range(self.samples):
            for examples in self.pieces(slice(0, len(self.examples)), sample, rows):
                yield layers.factors(examples)

    def pieces(self, where: slice, sample: int, rows: int) -> Iterator[Examples]:
        """Yield consecutive examples with one draw beside each, at most `rows` at a time: batches are (batch, v (b, c)).

        `where` begins at a multiple of DRAWN_TOGETHER.
        """
        for block in slices(where.stop - where.start, DRAWN_TOGETHER):
            start = where.start + block.start
            rng = self._generator(sample, start // DRAWN_TOGETHER)
            for part in slices(block.stop - block.start, rows):
                yield self._drawn(self.examples[start + part.start : start + part.stop], rng)

    def _generator(self, sample: int, block: int) -> np.random.Generator:
        key = np.random.SeedSequence(self.seed, spawn_key=(_STREAM, self.stream, sample, block))
        return np.random.Generator(np.random.PCG64(key))

    def _drawn(self, examples: Examples, rng: np.random.Generator) -> Examples:
        """Return the examples with v beside each: batches are (batch, v (b, c))."""
        batch = examples.batch()
        outputs = self.outputs(batch)
        drawn = self.task.sampled_output_gradients(outputs, batch, rng)
        if drawn is None:
            drawn = self._from_hessians(flatten(outputs), batch, rng)
        if examples.weights is not None:
            drawn = drawn * examples.weights.sqrt().unsqueeze(1)
        return Examples.of((batch, drawn), len(examples))

    def _from_hessians(self, outputs: Tensor, batch: Nested, rng: np.random.Generator) -> Tensor:
        """Return H^(1/2) times random signs."""
        values, directions = self.output_curvature(outputs.shape[1], batch)
        signs = torch.from_numpy(rng.integers(0, 2, tuple(outputs.shape)) * 2.0 - 1).to(values.device)
        along = (values.sqrt() * signs.to(values.dtype)).unsqueeze(2)
        return (directions @ along).squeeze(2)


@dataclass(frozen=True)
class ExactGradients(OutputGradients):
    """For every training example c gradients of <outputs, v>, with v the columns of (c w_i H_i)^(1/2): nothing is drawn.

    Their second moment, over examples and columns, is the Gauss-Newton matrix itself, the expectation that `PseudoGradients` is
    drawn from: c gradients an example, for c outputs.
    """

    @property
    def count(self) -> int:
        """Number of gradients: outputs of all examples."""
        return len(self.examples) * self._size

    @cached_property
    def _size(self) -> int:
        return flatten(self.outputs(self.examples[:1].batch())).shape[1]

    def few(self) -> Examples:
        """Return examples to try the objective on. Raises ConfigError for outputs that are too many to form their Hessian."""
        return next(self._columns(self.examples[: min(2, len(self.examples))]))

    def batches(self, layers: Layers, rows: int) -> Iterator[list[Factor]]:
        """Yield the gradients, at most `rows` examples at a time, column by column."""
        for where in slices(len(self.examples), rows):
            for examples in self._columns(self.examples[where]):
                yield layers.factors(examples)

    def _columns(self, examples: Examples) -> Iterator[Examples]:
        """Yield the examples with one column beside each, column by column."""
        batch = examples.batch()
        values, directions = self.output_curvature(self._size, batch)
        roots = (directions * (self._size * values).sqrt().unsqueeze(1)) @ directions.mT
        if examples.weights is not None:
            roots = roots * examples.weights.sqrt()[:, None, None]
        for column in roots.unbind(2):
            yield Examples.of((batch, column), len(examples))


@dataclass(frozen=True)
class LossGradients:
    """The gradients of the training losses themselves, by the root of each example's weight: those of the empirical Fisher."""

    task: GradientTask
    examples: Examples

    @property
    def count(self) -> int:
        """Number of gradients."""
        return len(self.examples)

    def objective(self, module: nn.Module, batch: Nested) -> Tensor:
        """Return the losses, (b,)."""
        return self.task.losses(module, batch)

    def few(self) -> Examples:
        """Return examples to try the objective on."""
        return self.examples[: min(2, len(self.examples))]

    def batches(self, layers: Layers, rows: int) -> Iterator[list[Factor]]:
        """Yield the gradients of all examples in their order, at most `rows` at a time."""
        weights = self.examples.weights
        rooted = self.examples if weights is None else replace(self.examples, weights=weights.sqrt())
        for _, factors in layers.batches(rooted, rows):
            yield factors


FisherName: TypeAlias = Literal["sampled", "exact", "empirical"]


def fisher_gradients(
    fisher: FisherName, model: Model, task: GradientTask, examples: Examples, drawn: tuple[int, int], samples: int
) -> PseudoGradients | ExactGradients | LossGradients:
    """Return the gradients whose second moment is a curvature, by the name that estimators give it.

    `drawn` is (seed, which of the models it is), from which `samples` targets an example are drawn for `sampled`.
    """
    if fisher == "empirical":
        return LossGradients(task, examples)
    if fisher == "exact":
        return ExactGradients(model, task, examples)
    return PseudoGradients(model, task, examples, *drawn, samples)
