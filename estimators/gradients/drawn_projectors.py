"""The random projections that estimators offer, by name."""

from __future__ import annotations

from typing import Literal, TypeAlias

from estimators.gradients.factored_projection import FactoredProjection, ranks_within
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from estimators.gradients.projection import Kind, Projection
from estimators.gradients.projectors import Factored, FactoredSparse, Projector, Unprojected, Whole
from estimators.gradients.sparse_projection import SparseProjection
from workers.task import Objective

ProjectionName: TypeAlias = Kind | Literal["sparse", "factored", "factored_sparse"]


def drawn_projector(
    name: ProjectionName,
    k: int | None,
    model: Model,
    training: tuple[Objective, Examples],
    drawn: tuple[int, int],
    budget: int,
) -> Projector:
    """Return a projector of the model's gradients to k dimensions, at most k where layers are `factored`; None leaves them.

    Layers are found by the objective of the training examples alone, `drawn` is (seed, stream); `budget` bounds, in bytes, what
    independent entries may take. Raises ConfigError for a k that the layers cannot be projected to.
    """
    seed, stream = drawn
    if k is None:
        return Unprojected(model.p)
    if name == "sparse":
        return Whole(SparseProjection(model.p, k, seed, stream, model.dtype))
    if name == "rademacher" or name == "normal":
        return Whole(Projection(model.p, k, seed, stream, model.dtype, budget, name))
    (layers,) = Layers.of(model, [training])
    ranks = ranks_within(layers.blocks, k)
    if name == "factored_sparse":
        return FactoredSparse(layers.blocks, ranks, seed, stream, model.dtype)
    return Factored(FactoredProjection.random(layers.blocks, ranks, seed, stream, model.dtype))
