"""Projections on the leading eigenvectors of a Kronecker-factored curvature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.curvature.kronecker import KroneckerFactored
from estimators.gradients.factored_projection import FactoredProjection, Side


def leading(curvature: KroneckerFactored, ranks: Sequence[tuple[int, int]]) -> FactoredProjection:
    """Return the projection of each side of a block on its eigenvectors of the largest eigenvalues (LoGra's PCA).

    A side without eigenvectors (an embedding's tokens) keeps its largest entries.
    """
    sides = []
    for basis, block, (out, inner) in zip(curvature.bases, curvature.blocks, ranks, strict=True):
        # Eigenvalues are products of the two sides': either side's order is that of the sums over the other.
        by_out, by_inner = basis.eigenvalues.sum(1), basis.eigenvalues.sum(0)
        sides.append(
            (
                _side(basis.out, by_out, min(out, block.shape[0])),
                _side(basis.inner, by_inner, min(inner, block.shape[1])),
            )
        )
    return FactoredProjection(curvature.blocks, tuple(sides))


def _side(vectors: Tensor | None, values: Tensor, k: int) -> Side:
    if k == len(values):
        return Side(None)
    chosen = values.argsort(descending=True)[:k]
    if vectors is None:
        vectors = torch.eye(len(values), dtype=values.dtype, device=values.device)
    return Side(vectors[:, chosen])
