"""Fisher matrices: of the losses' own gradients (empirical), and of gradients that are drawn (Monte Carlo)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from estimators.curvature.gauss_newton import GaussNewton
from estimators.curvature.gram import BATCH, Gram
from estimators.curvature.jacobian_products import LinearMap, Said
from estimators.gradients.functional_model import Examples, Model, Parameters
from estimators.gradients.per_example import blocks, slices
from workers.data.nested import Nested
from workers.errors import ConfigError
from workers.task import GradientTask


class EmpiricalFisher(Gram):
    """F = (1/n) sum over examples of w_i g_i g_i^T, (p, p), with g_i the gradient of loss i itself, and w_i its weight.

    It is no approximation of the Hessian (Kunstner, Balles and Hennig 2019): where the training losses are near 0, so is F. The
    matrix costs a gradient an example, whatever the number of outputs.

    >>> import torch
    >>> from estimators.curvature.fisher import EmpiricalFisher
    >>> from estimators.gradients.functional_model import Examples, Model
    >>> from estimators.gradients.per_example import gradients
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()
    >>> task, model = evidence.task, Model(evidence.task, evidence.references[0].checkpoints[-1], torch.float64)
    >>> train = Examples.training(task, torch.float64)
    >>> g = gradients(model, task.losses, train, budget=2**20)
    >>> torch.allclose(EmpiricalFisher(model, task, train, budget=2**20).dense(), g.T @ g / len(train))
    True
    """

    @property
    def rank(self) -> int:
        """The number of examples."""
        return len(self.examples)

    def roots(self) -> Iterator[Tensor]:
        """Yield blocks (b, p) of rows w_i^(1/2) g_i."""
        weights = self.examples.weights
        rooted = Examples(self.examples.readable, self.examples.indices, None if weights is None else weights.sqrt())
        for _, rows in blocks(self.model, self.task.losses, rooted, self.budget):
            yield rows

    def _said(self, where: slice) -> tuple[Said, Callable[[Tensor], LinearMap]]:
        """Return the losses, and the product with their weights."""
        part = self.examples[where]
        batch, weights = part.batch(), part.weights

        def losses(parameters: Parameters) -> Tensor:
            return self.model.value(parameters, self.task.losses, batch)

        return losses, lambda _: lambda tangent: tangent if weights is None else tangent * weights


class SampledFisher(GaussNewton):
    """F = (1/n) sum over examples of w_i (1/s) sum over draws k of J_i^T z_ik z_ik^T J_i, with z_ik = H_i^(1/2) e_ik.

    J_i (c, p) and H_i (c, c) are those of the Gauss-Newton matrix, e_ik (c,) independent random signs: E z z^T = H_i, so that E F
    is the Gauss-Newton matrix for any loss convex in the outputs. Where the loss is a negative log-likelihood whose natural
    parameters are the outputs (cross-entropy of logits; squared error), H_i is the Fisher information of the outputs, and a
    gradient of a label drawn from the model, as it is mostly defined (Martens 2020, section 5), has the same second moment as
    z. The matrix costs s gradients an example instead of c.

    The signs of example i depend on the seed and on i alone, not on the budget. Raises ConfigError for no draws.

    >>> import torch
    >>> from estimators.curvature.fisher import SampledFisher
    >>> from estimators.curvature.gauss_newton import GaussNewton
    >>> from estimators.gradients.functional_model import Examples, Model
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()
    >>> task, model = evidence.task, Model(evidence.task, evidence.references[0].checkpoints[-1], torch.float64)
    >>> train = Examples.training(task, torch.float64)
    >>> F, G = SampledFisher(model, task, train, 2**20, samples=500, seed=0), GaussNewton(model, task, train, 2**20)
    >>> F.rank, bool((F.dense() - G.dense()).norm() < 0.1 * G.dense().norm())
    (12000, True)
    """

    def __init__(
        self, model: Model, task: GradientTask, examples: Examples, budget: int, samples: int = 1, seed: int = 0
    ):
        super().__init__(model, task, examples, budget)
        if samples < 1:
            raise ConfigError(f"samples: expected at least 1 draw an example, found {samples}")
        self._samples, self._seed = samples, seed

    @property
    def rank(self) -> int:
        """Largest rank that F can have: examples times draws."""
        return len(self.examples) * self._samples

    def roots(self) -> Iterator[Tensor]:
        """Yield blocks (b, p) of rows (w_i / s)^(1/2) z_ik^T J_i."""
        size = self.outputs(self.examples[:1].batch()).numel()
        for block in slices(len(self.examples), BATCH):
            part, signs = self.examples[block], self._signs(block, size)
            for where in self.in_budget(part, size):
                batch = part[where].batch()
                for drawn in self._drawn(batch, part[where].weights, signs[where]).unbind(1):
                    yield self.pulled_back(batch, drawn)

    def _said(self, where: slice) -> tuple[Said, Callable[[Tensor], LinearMap]]:
        """Return the outputs, and the product with the draws' second moments."""
        part = self.examples[where]
        batch = part.batch()
        signs = self._signs(where, self.outputs(part[:1].batch()).numel())
        drawn = self._drawn(batch, part.weights, signs)

        def middle(_: Tensor) -> LinearMap:
            return lambda tangent: torch.einsum("bsc,bs->bc", drawn, torch.einsum("bsc,bc->bs", drawn, tangent))

        return (lambda parameters: self._flat(parameters, batch)), middle

    def _signs(self, block: slice, size: int) -> Tensor:
        """Return the signs (b, s, c) of a block of BATCH examples."""
        key = (zlib.crc32(b"estimators.fisher"), block.start // BATCH)
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))
        shape = (block.stop - block.start, self._samples, size)
        return torch.from_numpy(rng.integers(0, 2, shape, dtype=np.int8)).to(self.device, self.dtype) * 2 - 1

    def _drawn(self, batch: Nested, weights: Tensor | None, signs: Tensor) -> Tensor:
        """Return (w_i / s)^(1/2) z_ik, (b, s, c)."""
        values, vectors = self.output_curvature(batch, weights)
        halves = (vectors * values.sqrt().unsqueeze(1)) @ vectors.mT
        found: Tensor = signs @ halves / self._samples**0.5
        return found
