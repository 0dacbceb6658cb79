"""HyDRA: the hypergradient of every example's weight, carried through the training, with or without curvature."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from estimators.gradient_based.walked import WalkEstimator

if TYPE_CHECKING:
    from estimators.trajectories.step_graph import Curvature


class Hydra(WalkEstimator):
    """tau[i, q] = <grad f_q(theta_T), d theta_T / d w_i>, the second factor carried through the steps; averaged over models.

    Chen et al. 2021: with u_k = d theta_k / d w_i, SGD carries u_{k+1} = (1 - lr_k decay) u_k - lr_k (H_k u_k + grad loss_i / B
    if i is in step k), and its momentum likewise. Without `hessian` the term H_k u_k is left out, which costs less; the decay of
    the weights and the moments of the optimizer are carried all the same, for adam and adamw too. With it, this is `unrolled`.
    Here the same sum is taken backwards, from the queries, which is the same number and needs nothing for each example.

    >>> from estimators.gradient_based.hydra import Hydra
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Hydra(models=1).attribute(evidence)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "hydra"

    hessian: bool = Field(False, description="carry the Hessian of each step's loss: exact, and `unrolled`")

    @property
    def claims_units(self) -> bool:
        """With the Hessian alone: without it nothing that was learned is ever forgotten."""
        return self.hessian

    @property
    def curvature(self) -> Curvature:
        """Return what the option says."""
        return "hessian" if self.hessian else "none"
