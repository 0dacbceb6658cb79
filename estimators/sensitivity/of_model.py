"""The sensitivities of a model to all of its training examples, from a full, a Kronecker-factored or a diagonal covariance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from estimators.curvature.operator import Rows
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.linearized import LinearizedModel
from estimators.gradients.output_losses import OutputLosses
from estimators.gradients.outputs import unflatten
from estimators.gradients.per_example import rows_within, slices
from estimators.sensitivity.equation import Sensitivities, prediction_variance
from estimators.sensitivity.layer_jacobians import LayerJacobians
from workers.errors import ConfigError, DivergedError
from workers.task import GradientTask

DiagonalOf = Callable[[LayerJacobians], Sequence[Tensor]]
"""Returns a diagonal covariance, in units of the mean loss, block by block (out, in)."""


def by_solves(model: Model, task: GradientTask, examples: Examples, solve: Rows, budget: int) -> Sensitivities:
    """Return the sensitivities of n examples, with `solve` v -> n S v: one solve for every example and output."""
    losses = OutputLosses(task, model, examples)
    point = LinearizedModel(task, model, losses.size, budget // 4)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for where in slices(len(examples), rows_within(budget // 8, losses.size * model.p * model.dtype.itemsize)):
        part = examples[where]
        outputs, jacobians = point.outputs(part)
        error = losses.derivatives(outputs, part.batch(), part.weights)[0]
        parts.append((outputs, error, prediction_variance(jacobians, solve)))
    outputs, errors, variances = (torch.cat(each) for each in zip(*parts, strict=True))
    return Sensitivities(outputs, errors, variances / len(examples))


def by_diagonal(
    model: Model, task: GradientTask, examples: Examples, covariance: DiagonalOf, budget: int
) -> Sensitivities:
    """Return the sensitivities of n examples with a diagonal covariance n S, which may be made of the very same Jacobians."""
    jacobians = LayerJacobians(model, task, examples, budget)
    diagonal = covariance(jacobians)
    parts = [(part.outputs, part.error, part.variance(diagonal)) for part in jacobians]
    outputs, errors, variances = (torch.cat(each) for each in zip(*parts, strict=True))
    return Sensitivities(outputs, errors, variances / len(examples))


def diagonal_newton(damping: float) -> DiagonalOf:
    """Return 1 / (diag G + damping) with G the Gauss-Newton matrix of the mean loss (row `newton`, diagonal).

    Raises ConfigError where that is not positive.
    """

    def found(jacobians: LayerJacobians) -> list[Tensor]:
        inverses = [value + damping for value in jacobians.gauss_newton_diagonal()]
        _refuse_zero(inverses, damping)
        return [value.reciprocal() for value in inverses]

    return found


def diagonal_adam(second: Tensor, damping: float) -> DiagonalOf:
    """Return 1 / (sqrt(second) + damping) with Adam's second moment (p,), corrected for its start (row `adam`)."""

    def found(jacobians: LayerJacobians) -> list[Tensor]:
        inverses = [value.sqrt() + damping for value in jacobians.by_block(second)]
        _refuse_zero(inverses, damping)
        return [value.reciprocal() for value in inverses]

    return found


def left_out_losses(task: GradientTask, model: Model, examples: Examples, outputs: Tensor) -> Tensor:
    """Return the examples' losses (n,), unweighted, were these their outputs (n, c)."""
    with torch.no_grad():
        like = task.forward(model.module, examples[:1].batch())
        parts = [
            task.criterion(unflatten(outputs[where], like), examples[where].batch())
            for where in slices(len(examples), 4096)
        ]
    return torch.cat(parts)


def _refuse_zero(values: Sequence[Tensor], damping: float) -> None:
    smallest = min(float(value.min()) for value in values)
    if math.isnan(smallest):
        raise DivergedError("the precision of a diagonal covariance is not finite: the training diverged")
    if not smallest > 0:
        raise ConfigError(
            f"a diagonal covariance needs a positive precision: found {smallest:g} with damping {damping:g}, "
            "expected a larger damping"
        )
