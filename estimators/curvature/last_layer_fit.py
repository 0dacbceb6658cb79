"""The last layer fitted to its optimum, with all that enters it held fixed: a convex problem, solved by Newton's method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.curvature.conjugate_gradients import ConjugateGradients
from estimators.gradients.forward import BATCH
from estimators.gradients.functional_model import Examples
from estimators.gradients.output_losses import OutputLosses, Product
from estimators.gradients.per_example import slices
from workers.errors import ConfigError

STEPS = 100
"""Most steps of Newton's method."""
PRODUCTS = 2000
"""Most products with the Hessian a step: a direction that is not solved for exactly is a descent all the same."""
REACHED, ENOUGH = 1e-14, 1e-10
"""Norms of the gradient, relative to the sum of the norms of what cancels in it: to stop at, and to be content with."""
SHORTEST = 2.0**-30
"""Least part of a Newton step."""


@dataclass(frozen=True)
class LastLayerProblem:
    """Minimize (1/n) sum of w_i loss_i(h_i V) + (l2 / 2) |V|^2 + (damping / 2) |V - V_0|^2 over V (d, c)."""

    losses: OutputLosses
    examples: Examples
    """The n training examples, with the factors w_i on their losses."""
    inputs: Tensor
    """h (n, d)."""
    start: Tensor
    """V_0 (d, c)."""
    l2: float
    """Pulls to 0."""
    damping: float
    """Pulls to the start."""

    def at(self, weights: Tensor) -> Point:
        """Return what is known of the objective at V (d, c)."""
        n, gradients, products = len(self.examples), [], []
        places = list(slices(n, BATCH))
        for where in places:
            part = self.examples[where]
            gradient, product = self.losses.derivatives(self.inputs[where] @ weights, part.batch(), part.weights)
            gradients.append(gradient)
            products.append(product)

        def product_of_all(rows: Tensor) -> Tensor:
            return torch.cat([product(rows[where]) for where, product in zip(places, products, strict=True)])

        found = torch.cat(gradients)
        of_losses, shrinking, pulling = (
            self.inputs.T @ found / n,
            self.l2 * weights,
            self.damping * (weights - self.start),
        )
        scale = float((self.inputs.norm(dim=1) * found.norm(dim=1)).sum()) / n
        scale += float(shrinking.norm()) + float(pulling.norm())
        return Point(weights, found, product_of_all, of_losses + shrinking + pulling, scale)

    def direction(self, point: Point) -> Tensor:
        """Return Newton's step (d, c), by conjugate gradients, the more exactly the nearer the optimum is."""

        def curved(rows: Tensor) -> Tensor:
            found = [self.inputs.T @ point.product(self.inputs @ row.reshape(point.weights.shape)) for row in rows]
            return torch.stack(found).flatten(1) / len(self.examples)

        tolerance = max(1e-10, min(0.1, point.slope**0.5))
        solve = ConjugateGradients(curved, self.l2 + self.damping, tolerance, PRODUCTS)
        return -solve(point.gradient.reshape(1, -1)).values.reshape(point.weights.shape)


@dataclass(frozen=True)
class Point:
    """The objective at one V."""

    weights: Tensor
    """V (d, c)."""
    gradients: Tensor
    """(n, c) gradients of the examples' weighted losses in their outputs h_i V."""
    product: Product
    """The product (n, c) with the Hessians (c, c) of those losses in their outputs."""
    gradient: Tensor
    """The objective's gradient (d, c)."""
    scale: float
    """Sum of the norms of the parts of that gradient, which cancel at the optimum."""

    @property
    def slope(self) -> float:
        """Norm of the gradient over that of its parts: 0 at the optimum, but for rounding."""
        return float(self.gradient.norm()) / self.scale if self.scale else 0.0


def fit_last_layer(problem: LastLayerProblem) -> Point:
    """Return the minimizer, by Newton's method with steps that are halved until the gradient's norm falls.

    That norm falls along Newton's direction of any convex objective: no value of the loss is asked for, whose rounding would
    end the search early. Raises ConfigError where no point is flat enough: the problem has no optimum (a loss without penalty
    on classes that can be told apart), or the loss is not convex in the outputs.
    """
    point = problem.at(problem.start)
    for _ in range(STEPS):
        following = None if point.slope <= REACHED else _step(problem, point)
        if following is None:
            break
        point = following
    if not point.slope <= ENOUGH:
        raise ConfigError(
            f"the last layer has no optimum that is reached in {STEPS} Newton steps: the gradient is {point.slope:.2g} of "
            f"its parts, expected at most {ENOUGH:g}; a larger penalty helps where classes can be told apart, and only a loss "
            "that is convex in the outputs has an optimum"
        )
    return point


def _step(problem: LastLayerProblem, point: Point) -> Point | None:
    """Return the next point, None where the gradient's norm does not fall."""
    direction, size, before = problem.direction(point), 1.0, float(point.gradient.norm())
    while size >= SHORTEST:
        tried = problem.at(point.weights + size * direction)
        if float(tried.gradient.norm()) <= (1 - 1e-4 * size) * before:
            return tried
        size /= 2
    return None
