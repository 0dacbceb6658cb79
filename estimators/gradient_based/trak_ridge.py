"""TRAK with a ridge: the Gram matrix is damped by the mean of its eigenvalues."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from estimators.gradient_based.trak import Trak


class TrakRidge(Trak):
    """As `trak`, with a damping of the Gram matrix's diagonal, which the paper does not have.

    The default is the mean of the eigenvalues that can differ from 0 (min(n, k) of them), chosen by no score. The paper's inverse
    weighs directions most in which examples hardly differ; the damping takes their weight, which matters most where there are
    about as many features as examples, or more.

    >>> from estimators.gradient_based.trak_ridge import TrakRidge
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = TrakRidge().attribute(evidence)
    >>> made.values.shape, [round(damping) for damping in made.details["damping"]]
    ((24, 4), [33, 33])
    """

    name: ClassVar[str] = "trak_ridge"

    damping: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] = Field(
        "auto", description="added to the Gram matrix's diagonal; auto = the mean of its non-zero eigenvalues"
    )
