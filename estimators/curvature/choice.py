"""From what a user asks for to a curvature of one model, and to a solver of the damped system with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from estimators.curvature.conjugate_gradients import ConjugateGradients
from estimators.curvature.diagonal import Diagonal
from estimators.curvature.fisher import EmpiricalFisher, SampledFisher
from estimators.curvature.gauss_newton import GaussNewton
from estimators.curvature.gram import Gram
from estimators.curvature.hessian import Hessian
from estimators.curvature.kronecker_fit import ekfac
from estimators.curvature.lanczos import LanczosSolver
from estimators.curvature.lissa import Lissa, largest_eigenvalue
from estimators.curvature.nystroem import Nystroem, NystroemSolver
from estimators.curvature.operator import Operator, Rows
from estimators.curvature.solvers import CholeskySolver, RootSolver, Solution, Solver
from estimators.gradients.functional_model import Examples, Model
from workers.errors import ConfigError
from workers.task import GradientTask

EXACT_UP_TO = 8_000
"""`auto` forms and factors a matrix up to so many parameters, or rows."""
PROBES = 32
"""Random directions that estimate the mean eigenvalue when the matrix is not formed."""
SCALE = 1.1
"""The scale of LiSSA is so many times the largest eigenvalue that power iteration found."""


@dataclass(frozen=True)
class SolverOptions:
    """Which solver, and how it works."""

    solver: Literal["auto", "exact", "cg", "lissa", "arnoldi", "nystroem"]
    tolerance: float
    max_iterations: int
    preconditioner: Literal["none", "nystroem", "diagonal", "ekfac"]
    rank: int
    depth: int
    scale: float | Literal["auto"]
    budget: int
    """Bytes that may be held."""
    seed: int
    """Of what is drawn: probes, sketches, first vectors."""


def curvature_of(
    kind: str, model: Model, task: GradientTask, train: Examples, budget: int, samples: int, seed: int
) -> Operator:
    """Return the curvature of the mean training loss that goes by this name; `samples` and `seed` are for `fisher`."""
    if kind == "hessian":
        return Hessian(model, task, train)
    if kind == "fisher":
        return SampledFisher(model, task, train, budget, samples, seed)
    return (EmpiricalFisher if kind == "empirical_fisher" else GaussNewton)(model, task, train, budget)


@dataclass
class System:
    """A curvature, and the solver that was asked for, or that `auto` stands for: exact where it is affordable, else `cg`.

    What an exact solver needs is formed at once: the matrix, or its roots where they are fewer and fit into the budget.
    Exact solvers work in float64, whatever the curvature's precision.
    """

    curvature: Operator
    options: SolverOptions
    told: dict[str, float] = field(default_factory=dict)
    """What a solver chose by itself: the scale of LiSSA."""

    def __post_init__(self) -> None:
        p, budget = self.curvature.p, self.options.budget
        rank = self.curvature.rank if isinstance(self.curvature, Gram) else p
        by_roots = rank < p and rank * p * 8 <= budget
        self.name: str = self.options.solver
        if self.name == "auto":
            self.name = "exact" if (rank if by_roots else p) <= EXACT_UP_TO else "cg"
        self._matrix: Tensor | None = None
        self._roots: Tensor | None = None
        if self.name == "exact" and by_roots and isinstance(self.curvature, Gram):
            blocks = [rows.double() for rows in self.curvature.roots()]
            self._roots = torch.cat(blocks) / len(self.curvature.examples) ** 0.5
        elif self.name == "exact":
            if p > EXACT_UP_TO:
                self._refuse_beyond_budget(2 * p * p, f"solver: exact takes, for {p:,} parameters,", "another solver")
            self._matrix = self.curvature.dense()

    def mean_eigenvalue(self) -> float:
        """Return tr A / p: exact where the matrix or its roots are there, else estimated."""
        if self._matrix is not None:
            trace = float(self._matrix.trace())
        elif self._roots is not None:
            trace = float(self._roots.square().sum())
        else:
            trace = self.curvature.estimated_trace(PROBES, self.options.seed)
        return trace / self.curvature.p

    def solver(self, damping: float) -> Solver:
        """Return what solves (A + damping I) x = b. Raises ConfigError for a system that the solver cannot solve."""
        options, product = self.options, self.curvature.product
        if self._matrix is not None:
            return _in_float64(CholeskySolver(self._matrix, damping))
        if self._roots is not None:
            return _in_float64(RootSolver(self._roots, damping))
        if self.name == "lissa":
            scale = self._scale(damping)
            self.told["scale"] = scale
            return Lissa(product, damping, scale, options.depth, options.tolerance)
        rank = min(options.rank, self.curvature.p)
        if self.name == "arnoldi":
            self._refuse_beyond_budget(4 * rank * self.curvature.p, f"rank: {rank} takes", "a smaller rank")
            start = self._normal(1)[0]
            return LanczosSolver(product, damping, start, rank, 2 * rank, options.tolerance, seed=options.seed)
        if self.name == "nystroem":
            return NystroemSolver(product, self._sketched(rank), damping, options.tolerance)
        return ConjugateGradients(
            product, damping, options.tolerance, options.max_iterations, self._preconditioner(rank, damping)
        )

    def _preconditioner(self, rank: int, damping: float) -> Rows | None:
        if self.options.preconditioner == "ekfac" and isinstance(self.curvature, Gram | Hessian):
            seen = self.curvature
            budget = self.options.budget // 2
            return ekfac(seen.model, seen.task, seen.examples, self.options.seed, budget).inverse(damping)
        if self.options.preconditioner == "diagonal":
            return Diagonal(self.curvature.diagonal().to(self.curvature.dtype)).inverse(damping)
        return self._sketched(rank).preconditioner(damping) if self.options.preconditioner == "nystroem" else None

    def _sketched(self, rank: int) -> Nystroem:
        self._refuse_beyond_budget(3 * rank * self.curvature.p, f"rank: {rank} takes", "a smaller rank")
        return Nystroem(self.curvature.product, self._normal(rank))

    def _scale(self, damping: float) -> float:
        if self.options.scale != "auto":
            return self.options.scale
        return SCALE * (largest_eigenvalue(self.curvature.product, self._normal(1)) + damping)

    def _normal(self, rows: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.options.seed)
        drawn = torch.randn(rows, self.curvature.p, generator=generator, dtype=torch.float64)
        return drawn.to(self.curvature.device, self.curvature.dtype)

    def _refuse_beyond_budget(self, numbers: int, what: str, expected: str) -> None:
        held = numbers * 8
        if held > self.options.budget:
            raise ConfigError(
                f"{what} {held / 2**30:.2g} GiB, more than memory_gb={self.options.budget / 2**30:.2g} allows: "
                f"expected {expected} or a larger memory_gb"
            )


def _in_float64(solve: Callable[[Tensor], Solution]) -> Solver:
    """Return the solver for sides of any precision, solved in float64."""

    def solved(sides: Tensor) -> Solution:
        found = solve(sides.double())
        return replace(found, values=found.values.to(sides.dtype))

    return solved
