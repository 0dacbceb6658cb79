"""Gradients whose second moment is the Gauss-Newton matrix: of the loss at targets that the model itself might have drawn."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

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
class PseudoGradients:
    """For every training example the gradient of <outputs, v>, with v random of mean 0 and covariance w_i H_i.

    H_i is the Hessian of the loss in the outputs and w_i the example's weight, so that the second moment of these gradients, over
    examples and draws, is the Gauss-Newton matrix; for losses that are negative log-likelihoods also the Fisher information
    (Kunstner et al. 2019; Martens 2020). `samples` draws an example, always the same for a seed and a stream.
    """

    model: Model
    task: GradientTask
    examples: Examples
    seed: int
    stream: int = 0
    samples: int = 1

    @property
    def count(self) -> int:
        """Number of gradients: draws of all examples."""
        return len(self.examples) * self.samples

    def objective(self, module: nn.Module, pair: tuple[Nested, Tensor]) -> Tensor:
        """Return <outputs, v>, (b,), for a batch and v (b, c)."""
        batch, drawn = pair
        return (flatten(self.task.forward(module, batch)) * drawn).sum(1)

    def few(self) -> Examples:
        """Return examples to try the objective on. Raises ConfigError for outputs that are too many to draw v for."""
        return self._drawn(self.examples[: min(2, len(self.examples))], self._generator(0, 0))

    def batches(self, layers: Layers, rows: int) -> Iterator[list[Factor]]:
        """Yield the pseudo-gradients of all examples in their order, at most `rows` at a time, draw by draw.

        `layers` are the objective's.
        """
        for sample in range(self.samples):
            for block, whole in enumerate(slices(len(self.examples), DRAWN_TOGETHER)):
                rng = self._generator(sample, block)
                for part in slices(whole.stop - whole.start, rows):
                    where = slice(whole.start + part.start, whole.start + part.stop)
                    yield layers.factors(self._drawn(self.examples[where], rng))

    def _generator(self, sample: int, block: int) -> np.random.Generator:
        key = np.random.SeedSequence(self.seed, spawn_key=(_STREAM, self.stream, sample, block))
        return np.random.Generator(np.random.PCG64(key))

    def _drawn(self, examples: Examples, rng: np.random.Generator) -> Examples:
        """Return the examples with v beside each: batches are (batch, v (b, c))."""
        batch = examples.batch()
        with torch.no_grad():
            outputs = self.model.value(
                self.model.parameters, lambda module, held: self.task.forward(module, held), batch
            )
        drawn = self.task.sampled_output_gradients(outputs, batch, rng)
        if drawn is None:
            drawn = self._from_hessians(flatten(outputs), batch, rng)
        if examples.weights is not None:
            drawn = drawn * examples.weights.sqrt().unsqueeze(1)
        return Examples.of((batch, drawn), len(examples))

    def _from_hessians(self, outputs: Tensor, batch: Nested, rng: np.random.Generator) -> Tensor:
        """Return H^(1/2) times random signs."""
        size = outputs.shape[1]
        if size > HESSIAN_UP_TO:
            raise ConfigError(
                f"the module has {size} outputs an example, too many to form the Hessian of the loss in them (expected at most "
                f"{HESSIAN_UP_TO}): give the task `sampled_output_gradients(outputs, batch, rng)`, or use fisher: empirical"
            )
        curvature = GaussNewton(self.model, self.task, self.examples, budget=2**62)
        values, directions = curvature.output_curvature(batch, None)
        signs = torch.from_numpy(rng.integers(0, 2, tuple(outputs.shape)) * 2.0 - 1).to(values.device)
        along = (values.sqrt() * signs.to(values.dtype)).unsqueeze(2)
        return (directions @ along).squeeze(2)


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
