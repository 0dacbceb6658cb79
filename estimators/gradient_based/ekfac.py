"""Influence through EK-FAC: K-FAC's eigenvectors, with eigenvalues that are seen along them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from estimators.gradient_based.kfac import Kfac

if TYPE_CHECKING:
    from estimators.curvature.kronecker import KroneckerFactored
    from estimators.curvature.kronecker_fit import Fit


class Ekfac(Kfac):
    """tau[i, q] = - (1/n) grad f_q^T (F + damping I)^-1 grad loss_i with F by EK-FAC, averaged over models.

    As `kfac`, but for the eigenvalues: along each eigenvector of K-FAC's matrix the mean square of the gradients takes the place
    of the product of the sides' eigenvalues (George et al. 2018; Grosse et al. 2023, section 2.3 and appendix), which is the
    nearest matrix with these eigenvectors to the Gauss-Newton matrix of the layer. The same random targets serve both.

    Units of the measure, as far as the approximation goes. Cost: that of `kfac`, and one more pass over the training examples
    where their factors do not fit into `memory_gb`.

    >>> from estimators.gradient_based.ekfac import Ekfac
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Ekfac().attribute(evidence)
    >>> made.values.shape, made.models
    ((24, 4), 2)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "ekfac"

    def curvature(self, fit: Fit) -> KroneckerFactored:
        """Return the curvature of one model."""
        return fit.corrected(fit.kfac())
