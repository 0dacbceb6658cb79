"""Fisher matrices: of the losses' own gradients (empirical), and of gradients that are drawn (Monte Carlo)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from estimators.curvature.gram import Gram
from estimators.curvature.jacobian_products import LinearMap, Said
from estimators.curvature.pseudo_gradients import PseudoGradients
from estimators.gradients.functional_model import Examples, Model, Parameters
from estimators.gradients.per_example import blocks, rows_within
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


class SampledFisher(Gram):
    """F = (1/n) sum over examples of w_i (1/s) sum over draws k of J_i^T z_ik z_ik^T J_i, with E z_ik z_ik^T = H_i.

    J_i (c, p) and H_i (c, c) are those of the Gauss-Newton matrix, so that E F is that matrix. The draws z_ik (c,) are those of
    `PseudoGradients`: the loss's gradient in the outputs at a target that the task draws from the model's own prediction,
    which is the Fisher matrix as it is mostly defined (Martens 2020, section 5); where the task draws none, H_i^(1/2) times
    random signs, for any loss convex in the outputs. The matrix costs s gradients an example instead of c.

    The draws of example i depend on the seed and on i alone, not on the budget. Raises ConfigError for no draws.

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
        self._source = PseudoGradients(model, task, examples, seed, samples=samples)

    @property
    def rank(self) -> int:
        """Largest rank that F can have: examples times draws."""
        return self._source.count

    def roots(self) -> Iterator[Tensor]:
        """Yield blocks (b, p) of rows (w_i / s)^(1/2) z_ik^T J_i."""
        samples, size = self._source.samples, self.outputs(self.examples[:1].batch()).numel()
        rows = rows_within(self.budget // 2, max(self.p, size * size) * self.dtype.itemsize)
        for sample in range(samples):
            for part in self._source.pieces(slice(0, len(self.examples)), sample, rows):
                batch, drawn = part.batch()
                yield self.pulled_back(batch, drawn / samples**0.5)

    def _said(self, where: slice) -> tuple[Said, Callable[[Tensor], LinearMap]]:
        """Return the outputs, and the product with the draws' second moments."""
        batch = self.examples[where].batch()
        drawn = self._drawn(where)

        def middle(_: Tensor) -> LinearMap:
            return lambda tangent: torch.einsum("bsc,bs->bc", drawn, torch.einsum("bsc,bc->bs", drawn, tangent))

        return (lambda parameters: self._flat(parameters, batch)), middle

    def _drawn(self, where: slice) -> Tensor:
        """Return (w_i / s)^(1/2) z_ik of one of the product's batches, (b, s, c)."""
        samples, size = self._source.samples, where.stop - where.start
        draws = [
            torch.cat([part.batch()[1] for part in self._source.pieces(where, sample, size)])
            for sample in range(samples)
        ]
        found: Tensor = torch.stack(draws, dim=1) / samples**0.5
        return found
