"""TRAK with reweighting: the Gram matrix has the weights of the loss's second derivative."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from estimators.gradient_based.trak import Trak


class TrakReweighted(Trak):
    """As `trak`, with R = diag(d2loss/df2): for a margin p_i (1 - p_i), which the authors leave out of their estimator.

    Park et al. 2023 derive the estimator with R (equation 13: the Newton step of logistic regression on linearized features), and
    drop it because that changed their scores little. With it tau is in units of the measure.

    >>> from estimators.gradient_based.trak_reweighted import TrakReweighted
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = TrakReweighted().attribute(evidence)
    >>> made.values.shape, TrakReweighted().claims_units
    ((24, 4), True)
    """

    name: ClassVar[str] = "trak_reweighted"

    reweight: bool = Field(True, description="weight the Gram matrix by the loss's second derivative")
