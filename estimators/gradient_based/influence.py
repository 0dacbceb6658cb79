"""Influence functions: the first-order effect of an example's weight on the minimizer of the training loss."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from estimators.gradient_based.damped import DampedEstimator
from estimators.reference_estimator import Block, Material, ModelEffects
from workers.runs import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from estimators.curvature.choice import System
    from estimators.curvature.solvers import Solution
    from estimators.gradients.functional_model import Model
    from workers.task import GradientTask

LOOKED_AT = {
    "max_iterations": ("auto", "cg"),
    "preconditioner": ("cg",),
    "rank": ("arnoldi", "nystroem"),
    "depth": ("lissa",),
    "scale": ("lissa",),
}
"""By option, the solvers that look at it."""

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


class Influence(DampedEstimator):
    """tau[i, q] = - (1/n) grad f_q^T (A + (damping + weight decay) I)^-1 grad loss_i, averaged over models.

    Koh & Liang 2017, equation 2, at the last checkpoint. A is a curvature of the mean training loss: the generalized Gauss-Newton
    matrix (Martens 2020; Bae et al. 2022), their Hessian, the Fisher matrix by sampled gradients, or the empirical Fisher matrix,
    which approximates none of these once the training losses are small. Example i enters the mean loss with weight 1/n, so tau
    is the first-order effect of including it, in units of the measure.

    The damping is by default 1 / (sum over the training of lr / (1 - momentum)): what flat directions move by in a training of
    that length (Bae et al. 2024). For a task whose recipe is not known it is 0.1 x the mean eigenvalue (Grosse et al. 2023), and
    that is told.

    Cost: `exact` forms A, or its roots, and factors it; the others take products, two backward passes over the examples for
    every query and iteration. `cg` stops at a relative residual of 1e-3: on the digits its order of examples then has a rank
    correlation of .9999 with the exact one (.997 at 1e-2), while that of a model of another seed has .59; 1e-6 takes 1.7 times
    the products. `arnoldi` and `nystroem` share the products of one subspace among all queries, and leave out what is not in it.
    Every solve tells its true residual; what stays above the tolerance is counted in the details and logged.

    It fails where the model is far from a minimum: a Hessian with eigenvalues below -damping is refused, or met by `cg` and
    counted. docs/curvature.md has a table of curvatures and solvers.

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

    curvature: Literal["gauss_newton", "hessian", "fisher", "empirical_fisher"] = Field(
        "gauss_newton", description="which curvature of the training loss; fisher is sampled"
    )
    samples: int = Field(1, ge=1, description="curvature fisher: draws an example")
    damping: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto", "mean_eigenvalue"] = Field(
        "auto",
        description="added to the curvature's diagonal; auto = 1 / sum of lr / (1 - momentum), or what mean_eigenvalue is "
        "for a task without a recipe: 0.1 x the mean eigenvalue",
    )
    solver: Literal["auto", "exact", "cg", "lissa", "arnoldi", "nystroem"] = Field(
        "auto",
        description="exact (Cholesky), by products alone, or exact while parameters or examples x outputs are at most 8,000 "
        "and cg beyond",
    )
    precision: Literal["float64", "float32"] = Field(
        "float64", description="of gradients and products: the inverse magnifies the rounding of float32"
    )
    tolerance: float = Field(
        1e-3, gt=0, lt=1, description="relative residual that cg is to reach; others count beyond it"
    )
    max_iterations: int = Field(1000, ge=1, description="cg: most iterations a block of queries")
    preconditioner: Literal["none", "nystroem", "diagonal", "ekfac"] = Field(
        "none", description="cg: what makes it need fewer iterations, ekfac for large models; changes no answer"
    )
    rank: int = Field(
        100, ge=1, description="arnoldi: eigenvalues kept; nystroem, as solver or preconditioner: its sketch"
    )
    depth: int = Field(1000, ge=1, description="lissa: terms of the series")
    scale: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="lissa: divides the curvature; auto = 1.1 x its largest eigenvalue"
    )

    @model_validator(mode="after")
    def _together(self) -> Influence:
        for option, solvers in LOOKED_AT.items():
            used = self.solver in solvers or (option == "rank" and self.preconditioner == "nystroem")
            if not used and getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(f"{option} goes with solver {' or '.join(solvers)}, found {self.solver}")
        if self.samples != 1 and self.curvature != "fisher":
            raise ValueError(f"samples goes with curvature fisher, found {self.curvature}")
        if self.curvature == "hessian" and "nystroem" in (self.solver, self.preconditioner):
            raise ValueError(
                "nystroem needs a curvature without negative eigenvalues: gauss_newton or a fisher, found hessian"
            )
        if self.curvature == "hessian" and self.preconditioner == "diagonal":
            raise ValueError(
                "the diagonal of the hessian takes a product for every parameter: expected another preconditioner"
            )
        return self

    def dtype(self, task: GradientTask) -> torch.dtype:
        """Return the option `precision`."""
        import torch

        return torch.float64 if self.precision == "float64" else torch.float32

    def effects(self, material: Material) -> InfluenceEffects:
        """Solve for every query and model. Raises ConfigError for a flat measure, or a system that the solver cannot solve."""
        return InfluenceEffects(self, material)


class InfluenceEffects(ModelEffects):
    """What the solves of each model bring, and how they went."""

    def __init__(self, options: Influence, material: Material):
        super().__init__(material)
        self._options = options
        self._damping, self._decay = options.shift(material.task)
        self._solves = _Solves()
        self._scales: list[float] = []

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield - grad f_q^T (A + (damping + weight decay) I)^-1 grad loss_i."""
        from estimators.curvature.damping import MEAN_FRACTION
        from estimators.gradients.per_example import blocks, products

        task, train, budget = self.material.task, self.material.train, self._options.budget
        measure = self.measure(model)
        system = self._system(model)
        damping = MEAN_FRACTION * system.mean_eigenvalue() if self._damping is None else self._damping
        self._solves.solver.append(system.name)
        self._solves.damping.append(damping)
        solve = system.solver(damping + self._decay)
        self._scales += system.told.values()
        # Iterations hold a handful of vectors a query: an eighth of the budget for the queries' gradients.
        for where, rows in blocks(model, measure, self.material.queries, budget // 8):
            solution = solve(rows)
            self._solves.add(solution)
            yield where, -products(model, task.losses, train, solution.values, budget // 2)

    def values(self, total: Tensor) -> Tensor:
        """Return the mean over the models of a 1/n-th, and log what did not converge."""
        solves, references = self._solves, len(self.material.references)
        if solves.unconverged:
            logger.warning(
                "influence: %d of %d solves did not reach the relative residual %g in %d products (largest: %.2g)",
                *(solves.unconverged, references * len(self.material.queries)),
                *(self._options.tolerance, solves.iterations, solves.largest_residual),
            )
        return total / (len(self.material.train) * references)

    def details(self) -> Mapping[str, Any]:
        """Return the curvature, and how the solves went."""
        told: dict[str, Any] = {"curvature": self._options.curvature, **vars(self._solves)}
        if self._scales:
            told |= {"scale": self._scales, "depth": self._options.depth}
        return told | self._options.untold(self.material.task)

    def _system(self, model: Model) -> System:
        """Return the curvature of one model, with the solver that was asked for."""
        from estimators.curvature.choice import SolverOptions, System, curvature_of

        options, seed = self._options, _seed(self.material.seed)
        # Draws are of the model's own: those of one are not those of the next.
        drawn = _seed(self.material.seed, len(self._solves.solver))
        curvature = curvature_of(
            options.curvature,
            model,
            self.material.task,
            self.material.train,
            options.budget // 2,
            options.samples,
            drawn,
        )
        names = ("solver", "tolerance", "max_iterations", "preconditioner", "rank", "depth", "scale", "budget")
        return System(curvature, SolverOptions(**{name: getattr(options, name) for name in names}, seed=seed))


def _seed(seed: int, *place: int) -> int:
    """Return the seed of what is drawn, on a stream of its own."""
    key = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(b"estimators.influence"), *place))
    return int(key.generate_state(1, np.uint64)[0] >> np.uint64(1))
