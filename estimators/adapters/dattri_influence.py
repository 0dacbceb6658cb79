"""Influence functions as dattri computes them, on the sweep's reference models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from estimators.adapters.dattri_task import attribution_task
from estimators.adapters.peer import PeerEffects, PeerEstimator, version_of, without_bars
from estimators.reference_estimator import Block, Material
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    import torch

    from estimators.gradients.functional_model import Model
    from workers.task import DifferentiableTask, GradientTask


class DattriInfluence(PeerEstimator):
    """tau[i, q] = - (1/n) grad f_q^T (H + damping I)^-1 grad loss_i with H the Hessian, by dattri, averaged over models.

    Koh & Liang 2017, as https://github.com/TRAIS-Lab/dattri has it. dattri adds up inverses of batches where it is given
    several, so the curvature is that of one batch of all examples. The damping is ours (docs/curvature.md), for dattri's own,
    0, leaves the Hessian of a network singular; the recipe's weight decay is in it.

    Units of the measure. Cost: `explicit` forms the Hessian, p x p; `cg` takes two backward passes over all examples, at once,
    for every query and iteration: `max_iterations` of them, for dattri looks at no residual. It does not say whether that was
    enough, and what goes on after it has converged is not finite.

    >>> from estimators.adapters.dattri_influence import DattriInfluence
    >>> DattriInfluence(damping=0.01).solver
    'cg'
    """

    name: ClassVar[str] = "dattri_influence"
    library: ClassVar[str] = "dattri"
    imported_as: ClassVar[str] = "dattri"
    in_units: ClassVar[bool] = True

    solver: Literal["cg", "explicit"] = Field(
        "cg", description="conjugate gradients, or the Hessian formed and inverted"
    )
    damping: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="added to the Hessian's diagonal; auto = 1 / sum of lr / (1 - momentum)"
    )
    max_iterations: int = Field(10, ge=1, description="cg: iterations a query, dattri's default")

    def dtype(self, task: GradientTask) -> torch.dtype:
        """Return the type that the task is trained in."""
        from estimators.gradients.functional_model import precision_of

        return precision_of(task)

    def taken(self, task: GradientTask) -> DifferentiableTask:
        """Refuse a Hessian that is larger than the memory."""
        taken = super().taken(task)
        p = sum(value.numel() for value in self.module_of(taken).parameters())
        if self.solver == "explicit" and 16 * p * p > self.budget:
            raise ConfigError(
                f"{self.name}: the Hessian of {p:,} parameters and its inverse take {16 * p * p / 2**30:.3g} GiB, more than "
                f"memory_gb={self.memory_gb:g}: expected solver: cg"
            )
        return taken

    def shift(self, task: DifferentiableTask) -> float:
        """Return what is added to the diagonal: damping and weight decay."""
        from estimators.curvature.damping import l2_curvature, unrolled_damping

        damping = unrolled_damping(task.recipe, task.n) if self.damping == "auto" else self.damping
        return damping + l2_curvature(task.recipe, "dattri_influence knows no such term")

    def effects(self, material: Material) -> DattriEffects:
        """Solve for every query and model. Raises ConfigError for a task that dattri cannot take."""
        self.taken(material.task)
        return DattriEffects(self, material)


class DattriEffects(PeerEffects):
    """What dattri's influence functions say, model by model."""

    def __init__(self, options: DattriInfluence, material: Material):
        super().__init__(material)
        self._options = options
        self._shift = options.shift(self.task)

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield what one model brings to all queries."""
        from dattri.algorithm import influence_function
        from torch.utils.data import DataLoader

        options, n = self._options, len(self.material.train)
        task = attribution_task(self, options.module_of(self.task, checkpoint))
        known = {"device": str(model.device), "regularization": self._shift}
        if options.solver == "explicit":
            attributor = influence_function.IFAttributorExplicit(task, **known)
        else:
            attributor = influence_function.IFAttributorCG(task, max_iter=options.max_iterations, **known)
        train, queries = self.data(self.material.train), self.data(self.material.queries)
        batch = options.batch_of(model.p)
        with without_bars():
            attributor.cache(DataLoader(train, batch_size=n))
            scores = attributor.attribute(DataLoader(train, batch_size=n), DataLoader(queries, batch_size=batch))
        if not scores.isfinite().all():
            raise ConfigError(
                f"{options.name}: dattri's values are not finite; where its conjugate gradients had converged before "
                f"max_iterations={options.max_iterations}, expected fewer"
            )
        yield slice(0, len(self.material.queries)), -scores.detach().double() / n

    def details(self) -> Mapping[str, Any]:
        """Return the library, with its version, and what was added to the diagonal."""
        return {"library": version_of("dattri"), "damping": self._shift}
