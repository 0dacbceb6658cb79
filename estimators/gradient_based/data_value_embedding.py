"""Data value embeddings: leave-one-out along the trajectory, curvature by outer products of gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from estimators.gradient_based.walked import WalkEstimator

if TYPE_CHECKING:
    from estimators.trajectories.step_graph import Curvature


class DataValueEmbedding(WalkEstimator):
    """tau[i, q] = - <grad f_q(theta_T), sum over visits s of E_s(i)>, averaged over models.

    Wang et al. 2024, "Capturing the temporal dependence of training data influence": removing example i from step s of SGD moves
    the end by E_s(i) = [product over later steps k of (I - lr_k G_k)] lr_s / B grad loss_i(theta_s), where the Hessian of a
    step's loss is replaced by the mean of its examples' outer products, G_k = 1/B sum over z of grad loss_z grad loss_z^T. Here
    the product is taken backwards from the queries, so that no embedding is kept, and all visits of an example are summed.

    What departs from the paper: the updates of momentum, Adam and AdamW are carried by their own derivatives, where the paper
    takes SGD's; running statistics of normalizations are held; nothing is projected. The cost is that of `unrolled` without its
    second derivatives.

    >>> from estimators.gradient_based.data_value_embedding import DataValueEmbedding
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = DataValueEmbedding(models=1).attribute(evidence)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "data_value_embedding"
    in_units: ClassVar[bool] = True

    @property
    def curvature(self) -> Curvature:
        """Outer products of single gradients."""
        return "gauss_newton"
