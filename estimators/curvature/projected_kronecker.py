"""EK-FAC in a small space: eigenvectors from projected factors, eigenvalues from projected gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from estimators.curvature.kronecker import Basis
from estimators.curvature.kronecker_fit import kfac_bases
from estimators.curvature.projected import by_root_of_weight
from estimators.curvature.pseudo_gradients import LossGradients
from estimators.gradients.factored_projection import FactoredProjection
from estimators.gradients.layers import Layers


class ProjectedBasis:
    """Q diag(s) Q^T of one block, with Q of a basis and s the mean squares of gradients along it."""

    def __init__(self, basis: Basis, rooted: Tensor):
        """`rooted` (n, k_out k_in) are the projected gradients, by the roots of their examples' weights, in float64."""
        out, inner = (None if side is None else side.double() for side in (basis.out, basis.inner))
        basis = Basis(out, inner, basis.eigenvalues.double())
        squares = basis.into(rooted.reshape(-1, *basis.eigenvalues.shape)).square()
        self._basis = replace(basis, eigenvalues=squares.mean(0))

    def mean_eigenvalue(self) -> float:
        """Return the mean of s."""
        return float(self._basis.eigenvalues.mean())

    def solved(self, targets: Tensor, damping: float) -> Tensor:
        """Return Q (diag(s) + damping I)^-1 Q^T of every row, (t, k_out k_in)."""
        values = self._basis.eigenvalues
        turned = self._basis.into(targets.reshape(-1, *values.shape))
        return self._basis.back(turned / (values + damping)).flatten(1)


def projected_ekfac(
    layers: Layers, source: LossGradients, project: FactoredProjection, features: Sequence[Tensor], budget: int
) -> list[ProjectedBasis]:
    """Return EK-FAC's curvature of every block after a projection (Choe et al. 2024, section 3.1).

    `features` are the projected gradients of the source's weighted losses, (n, k) float64 a block; the sides' second moments are
    found in one more pass over the examples, within `budget` bytes.
    """
    rows = layers.rows(source.few(), budget)
    batches = (project.factors(factors) for factors in source.batches(layers, rows))
    bases = kfac_bases(project.projected, batches, source.count)
    weights = source.examples.weights
    return [ProjectedBasis(basis, by_root_of_weight(one, weights)) for basis, one in zip(bases, features, strict=True)]
