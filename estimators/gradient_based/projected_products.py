"""Inner products of gradients, as they are or projected: what is projected may be kept for queries that come later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from estimators.gradient_based.product_effects import ProductEffects
from estimators.gradient_based.projected import ProjectedEffects, ProjectingEstimator, Sizes, TrainingSide
from estimators.gradients.projection import Kind
from estimators.reference_estimator import Material, ModelEffects

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from estimators.gradients.functional_model import Model
    from estimators.gradients.gradient_products import Change
    from estimators.gradients.projectors import Projector

DIMENSION = 4096
"""Of projected gradients, where nothing else is said."""


class ProductEstimator(ProjectingEstimator):
    """An estimator whose effects are inner products of gradients at the last checkpoint."""

    normalizing: ClassVar[bool] = False
    """Whether gradients are divided by their lengths."""

    projection: Kind | Literal["none", "sparse", "factored", "factored_sparse"] = Field(
        "none",
        description="none = exact inner products; else a random projection, as trak's, whose rows may be kept (store)",
    )
    project_dim: int = Field(
        DIMENSION, ge=1, description="with a projection: dimension of projected gradients, all layers together"
    )

    @model_validator(mode="after")
    def _projected_to_be_kept(self) -> Self:
        if self.store and self.projection == "none":
            raise ValueError(
                "store keeps projected gradients, found projection none: expected projection factored or another one"
            )
        if self.projection == "none" and self.project_dim != DIMENSION:
            raise ValueError("project_dim goes with a projection, found projection none")
        return self

    @property
    def can_store(self) -> bool:
        """Where gradients are projected."""
        return self.projection != "none"

    def effects(self, material: Material) -> ModelEffects:
        """Multiply the gradients. Raises ConfigError for a flat measure, or rows that are larger than the memory."""
        if self.projection == "none":
            return ProductEffects(material, self.budget, self._change())
        return ProjectedProducts(self, material)

    def _change(self) -> Change | None:
        """Return what is made of unprojected gradients."""
        if not self.normalizing:
            return None
        from estimators.gradients.directions import directions

        return directions


@dataclass(frozen=True)
class _Rows:
    """What is multiplied with the queries' rows: minus those of the examples."""

    features: Tensor
    """(n, k)."""

    def effects(self, targets: Tensor) -> Tensor:
        """Return what they bring to queries with these projected gradients (t, k): (n, t)."""
        return -(self.features @ targets.T)

    def rows(self, dtype: torch.dtype) -> Tensor:
        """Return the rows (n, k) whose products with the targets are the effects."""
        return -self.features.to(dtype)


class ProjectedProducts(ProjectedEffects):
    """The inner products, or cosines, of projected gradients."""

    def __init__(self, options: ProductEstimator, material: Material):
        super().__init__(options, material)
        self._options = options

    def training_side(self, model: Model, number: int) -> TrainingSide:
        """Return the projected gradients of the losses."""
        self.refuse_beyond_memory(model)
        projector = self.drawn(model, number)
        losses, train = self.material.task.losses, self.material.train
        features = projector.rows(model, losses, train, self._options.budget // 4)
        return TrainingSide(projector, _Rows(self._length_one(features)), told={"dimension": projector.k})

    def targets(self, projector: Projector, model: Model) -> Tensor:
        """Return the projected gradients of the queries, (t, k) float64; of length 1 where the examples' are."""
        return self._length_one(super().targets(projector, model))

    def drawn(self, model: Model, number: int) -> Projector:
        """Return the network's own projection."""
        from estimators.gradients.drawn_projectors import drawn_projector

        options = self._options
        assert options.projection != "none"
        k = None if options.project_dim >= model.p else options.project_dim
        training = (self.material.task.losses, self.material.train)
        return drawn_projector(
            options.projection, k, model, training, (self.material.seed, number), options.budget // 4
        )

    def sizes(self, model: Model) -> Sizes:
        """Return the dimension."""
        return Sizes([self.drawn(model, 0).k], "project_dim", squares=False)

    def details(self) -> Mapping[str, Any]:
        """Return the dimension."""
        return {"dimension": self.told[-1]["dimension"]}

    def _length_one(self, rows: Tensor) -> Tensor:
        if not self._options.normalizing:
            return rows
        from estimators.gradients.directions import normalized

        return normalized(rows, [slice(None)])
