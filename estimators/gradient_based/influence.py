"""Influence functions: the first-order effect of an example's weight on the minimizer of the training loss."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.runs import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from estimators.curvature.gauss_newton import GaussNewton
    from estimators.curvature.solvers import Solution, Solver
    from estimators.gradients.functional_model import Model
    from workers.task import GradientTask

EXACT_UP_TO = 8_000
"""`solver: auto` forms and factors the (p, p) matrix up to so many parameters."""
AUTO_FRACTION = 0.1
"""`damping: auto` is this fraction of the mean eigenvalue (Grosse et al. 2023)."""
PROBES = 32
"""Random directions that estimate the mean eigenvalue when the matrix is not formed."""

logger = logging.getLogger(__name__)


@dataclass
class _Solves:
    """What happened in the solves of all reference models."""

    solver: list[str] = field(default_factory=list)
    damping: list[float] = field(default_factory=list)
    iterations: int = 0
    largest_residual: float = 0.0
    unconverged: int = 0

    def add(self, solution: Solution) -> None:
        self.iterations = max(self.iterations, solution.iterations)
        self.largest_residual = max(self.largest_residual, solution.residual)
        self.unconverged += solution.unconverged


class Influence(ReferenceEstimator):
    """tau[i, q] = - (1/n) grad f_q^T (G + (damping + weight decay) I)^-1 grad loss_i, averaged over models.

    Koh & Liang 2017, equation 2, with the generalized Gauss-Newton matrix G of the mean training loss in place of the
    Hessian (Martens 2020; Bae et al. 2022), at the last checkpoint. Example i enters the mean loss with weight 1/n, so
    tau is the first-order effect of including it, in units of the measure. All arithmetic is in float64, whatever the
    training's precision: the inverse magnifies rounding.

    >>> from estimators.gradient_based.influence import Influence
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Influence().attribute(evidence)
    >>> made.values.shape, made.models
    ((24, 4), 2)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "influence"
    in_units: ClassVar[bool] = True

    damping: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="added to the curvature's diagonal; auto = 0.1 x its mean eigenvalue"
    )
    weight_decay: bool = Field(
        True,
        description="add the recipe's weight decay (sgd, adam) to the diagonal, as its L2 term; not where it has no_decay",
    )
    solver: Literal["auto", "exact", "cg"] = Field(
        "auto", description="exact (Cholesky), cg, or exact while parameters or examples x outputs are at most 8,000"
    )
    tolerance: float = Field(1e-6, gt=0, lt=1, description="cg: relative residual to reach")
    max_iterations: int = Field(1000, ge=1, description="cg: most iterations a block of queries")

    def precision(self, task: GradientTask) -> torch.dtype:
        """Return float64."""
        import torch

        return torch.float64

    def effects(self, material: Material) -> InfluenceEffects:
        """Solve for every query and model. Raises ConfigError for a flat measure or a singular matrix.

        A conjugate gradient that does not converge is counted in the details (`unconverged`) and logged, not hidden.
        """
        return InfluenceEffects(self, material)


class InfluenceEffects(ModelEffects):
    """What the solves of each model bring, and how they went."""

    def __init__(self, options: Influence, material: Material):
        super().__init__(material)
        self._options = options
        self._solves = _Solves()

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield - grad f_q^T (G + (damping + weight decay) I)^-1 grad loss_i."""
        from estimators.curvature.gauss_newton import GaussNewton
        from estimators.gradients.per_example import blocks, products

        task, train, budget = self.material.task, self.material.train, self._options.budget
        measure = self.measure(model)
        solve = self._solver(GaussNewton(model, task, train, budget // 2))
        # Conjugate gradients hold a handful of vectors a query: an eighth of the budget for the queries' gradients.
        for where, rows in blocks(model, measure, self.material.queries, budget // 8):
            solution = solve(rows)
            self._solves.add(solution)
            yield where, -products(model, task.losses, train, solution.values, budget // 2)

    def values(self, total: Tensor) -> Tensor:
        """Return the mean over the models of a 1/n-th, and log what did not converge."""
        solves, references = self._solves, len(self.material.references)
        if solves.unconverged:
            logger.warning(
                "influence: %d of %d solves did not reach the relative residual %g in %d iterations (largest: %.2g)",
                *(solves.unconverged, references * len(self.material.queries)),
                *(self._options.tolerance, self._options.max_iterations, solves.largest_residual),
            )
        return total / (len(self.material.train) * references)

    def details(self) -> Mapping[str, Any]:
        """Return how the solves went."""
        known = self.material.task.recipe is not None or not self._options.weight_decay
        return vars(self._solves) | (
            {} if known else {"weight_decay": "left out: the task has no recipe that tells it"}
        )

    def _solver(self, curvature: GaussNewton) -> Solver:
        """Return the solver for one model, and note its kind and damping."""
        import torch

        from estimators.curvature.conjugate_gradients import ConjugateGradients
        from estimators.curvature.damping import l2_curvature
        from estimators.curvature.solvers import CholeskySolver, RootSolver

        options = self._options
        p, rank = curvature.model.p, curvature.rank
        by_roots = rank < p and rank * p * 8 <= options.budget
        smaller = rank if by_roots else p
        exact = options.solver == "exact" or (options.solver == "auto" and smaller <= EXACT_UP_TO)
        dense = curvature.dense() if exact and not by_roots else None
        roots = torch.cat(list(curvature.roots())) / len(curvature.examples) ** 0.5 if exact and by_roots else None
        if dense is not None:
            trace = float(dense.trace())
        elif roots is not None:
            trace = float((roots**2).sum())
        else:
            trace = (
                curvature.estimated_trace(PROBES, _probe_seed(self.material.seed)) if options.damping == "auto" else 0.0
            )
        damping = AUTO_FRACTION * trace / p if options.damping == "auto" else options.damping
        self._solves.solver.append("exact" if exact else "cg")
        self._solves.damping.append(damping)
        shift = damping + (l2_curvature(self.material.task.recipe) if options.weight_decay else 0.0)
        if dense is not None:
            return CholeskySolver(dense, shift)
        if roots is not None:
            return RootSolver(roots, shift)
        return ConjugateGradients(curvature.product, shift, options.tolerance, options.max_iterations)


def _probe_seed(seed: int) -> int:
    """Return the seed of the probing directions, on a stream of their own."""
    key = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(b"estimators.influence"),))
    return int(key.generate_state(1, np.uint64)[0] >> np.uint64(1))
