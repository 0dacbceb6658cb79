"""What an estimator on reference models computes before its values become float32, and projections as explicit matrices."""

import torch
from torch import Tensor

from estimators.evidence import Evidence
from estimators.gradients.factored_projection import FactoredProjection
from estimators.gradients.factored_sparse_projection import FactoredSparseProjection
from estimators.gradients.functional_model import Model
from estimators.reference_estimator import ReferenceEstimator


def exact_values(estimator: ReferenceEstimator, evidence: Evidence) -> Tensor:
    """Return tau (n, t) in float64."""
    effects = estimator.effects(estimator.material(evidence, estimator.references(evidence)))
    total = torch.zeros(evidence.n, evidence.t, dtype=torch.float64)
    for reference in effects.material.references:
        for where, block in effects.of_reference(reference):
            total[:, where] += block
    return effects.values(total)


def matrices(project: FactoredProjection, model: Model) -> list[Tensor]:
    """Return the projection of all parameters (p, k), block by block."""
    numbers = model.unflatten(torch.arange(model.p, dtype=torch.float64).unsqueeze(0))
    made = []
    for block, pair in zip(project.blocks, project.sides, strict=True):
        out, inner = (
            side.of(torch.eye(size, dtype=torch.float64)) for side, size in zip(pair, block.shape, strict=True)
        )
        whole = torch.zeros(model.p, out.shape[1] * inner.shape[1], dtype=torch.float64)
        whole[block.gathered(numbers).flatten().long()] = torch.kron(out.contiguous(), inner.contiguous())
        made.append(whole)
    return made


def sparse_matrices(project: FactoredSparseProjection, model: Model) -> list[Tensor]:
    """Return the projection of all parameters (p, k), block by block."""
    pairs = zip(matrices(project.masks, model), project.sums, strict=True)
    return [mask if one is None else mask @ one.matrix() for mask, one in pairs]
