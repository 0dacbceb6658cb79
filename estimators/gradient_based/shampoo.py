"""Influence through Shampoo's eigenvectors, with eigenvalues that are seen along them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from estimators.gradient_based.kfac import Kfac

if TYPE_CHECKING:
    from estimators.curvature.kronecker import KroneckerFactored
    from estimators.curvature.kronecker_fit import Fit


class Shampoo(Kfac):
    """tau[i, q] = - (1/n) grad f_q^T (F + damping I)^-1 grad loss_i with F in Shampoo's eigenbasis, averaged over models.

    As `ekfac`, with another basis: for a layer's gradient matrix G_i of example i the eigenvectors of the means of G_i G_i^T
    and of G_i^T G_i (Gupta et al. 2018, on single examples), which see how the two sides go together where K-FAC takes them
    as independent; eigenvalues are the mean squares of the gradients along their Kronecker products (Vyas et al. 2024, SOAP;
    Eschenhagen et al. 2025). Where an example passes a layer once, each side's mean is K-FAC's, with every example weighted
    by the squared length of the other side. An embedding keeps K-FAC's basis.

    Units of the measure, as far as the approximation goes. Cost: that of `ekfac`.

    >>> from estimators.gradient_based.shampoo import Shampoo
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Shampoo().attribute(evidence)
    >>> made.values.shape, made.models
    ((24, 4), 2)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "shampoo"

    def curvature(self, fit: Fit) -> KroneckerFactored:
        """Return the curvature of one model."""
        return fit.corrected(fit.shampoo())
