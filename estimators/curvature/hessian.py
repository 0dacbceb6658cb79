"""The Hessian of the training loss, as products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vjp

from estimators.curvature.operator import Operator
from estimators.gradients.functional_model import Examples, Model, Parameters
from estimators.gradients.per_example import slices
from workers.task import GradientTask
from workers.training.batchable_attention import batchable_attention

BATCH = 1024
"""Examples in one pass of a matrix-vector product."""


class Hessian(Operator):
    """H = (1/n) sum over examples of w_i d2 loss_i / d theta^2, (p, p), symmetric and not positive away from a minimum.

    By Pearlmutter 1994: a product is the gradient of <gradient, v>, so two backward passes over the examples a row; the matrix
    takes p of them. The recipe's L2 term is not in it: add it by `damped(l2_curvature(recipe))`.

    >>> import torch
    >>> from estimators.curvature.gauss_newton import GaussNewton
    >>> from estimators.curvature.hessian import Hessian
    >>> from estimators.gradients.functional_model import Examples, Model
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # logistic regression: its Hessian is its Gauss-Newton matrix
    >>> task, model = evidence.task, Model(evidence.task, evidence.references[0].checkpoints[-1], torch.float64)
    >>> train = Examples.training(task, torch.float64)
    >>> torch.allclose(Hessian(model, task, train).dense(), GaussNewton(model, task, train, budget=2**20).dense())
    True
    """

    def __init__(self, model: Model, task: GradientTask, examples: Examples):
        self.model, self.task, self.examples = model, task, examples
        self.p, self.dtype = model.p, model.dtype

    @property
    def device(self) -> torch.device:
        """That of the model's parameters."""
        return next(iter(self.model.parameters.values())).device

    def product(self, rows: Tensor) -> Tensor:
        """Return H v for the rows v of `rows` (r, p), without forming H."""
        result = torch.zeros_like(rows)
        with batchable_attention():  # fused kernels have no second derivative
            for where in slices(len(self.examples), BATCH):
                second = vjp(grad(self._total_loss(self.examples[where])), self.model.parameters)[1]
                for row, total in zip(rows, result, strict=True):
                    total += self.model.flatten(second(self.model.unflatten(row))[0])
        return result / len(self.examples)

    def _total_loss(self, part: Examples) -> Callable[[Parameters], Tensor]:
        batch = part.batch()

        def total(parameters: Parameters) -> Tensor:
            losses = self.model.value(parameters, self.task.losses, batch)
            return (losses if part.weights is None else losses * part.weights).sum()

        return total
