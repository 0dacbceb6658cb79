"""What estimators share that invert a curvature of the mean training loss: the damping, and the curvature of weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from estimators.reference_estimator import ReferenceEstimator

if TYPE_CHECKING:
    from estimators.evidence import Evidence
    from workers.task import GradientTask


class DampedEstimator(ReferenceEstimator):
    """An estimator whose curvature is damped, and has the recipe's L2 term beside the losses."""

    damping: float | Literal["auto", "mean_eigenvalue"] = Field("auto", description="added to the curvature's diagonal")
    weight_decay: bool = Field(
        True,
        description="add the recipe's weight decay (sgd, adam) to the diagonal, as its L2 term; not where it has no_decay",
    )

    def check(self, evidence: Evidence) -> None:
        """Refuse a flat measure, weight decay of some parameters only, and a damping that the recipe does not tell."""
        super().check(evidence)
        self.shift(evidence.differentiable())

    def shift(self, task: GradientTask) -> tuple[float | None, float]:
        """Return the damping, None where it is to come from the mean eigenvalue, and the curvature of the L2 term."""
        from estimators.curvature.damping import l2_curvature, unrolled_damping

        decay = l2_curvature(task.recipe) if self.weight_decay else 0.0
        if self.damping == "auto" and task.recipe is not None:
            return unrolled_damping(task.recipe, task.n), decay
        return (None if isinstance(self.damping, str) else self.damping), decay

    def size_of(self, option: str, evidence: Evidence) -> float | None:
        """Return a number of the size that an option has: of a damping that is none, the one that training suggests."""
        from estimators.curvature.damping import unrolled_damping

        recipe = evidence.differentiable().recipe
        if option != "damping" or not isinstance(self.damping, str) or recipe is None:
            return super().size_of(option, evidence)
        return unrolled_damping(recipe, evidence.n)

    def untold(self, task: GradientTask) -> dict[str, Any]:
        """Return what is told where a task has no recipe, and something is taken or left out for that."""
        told: dict[str, Any] = {}
        if task.recipe is None and self.weight_decay:
            told["weight_decay"] = "left out: the task has no recipe that tells it"
        if task.recipe is None and self.damping == "auto":
            told["damping_from"] = "0.1 x the mean eigenvalue: the task has no recipe that tells one"
        return told
