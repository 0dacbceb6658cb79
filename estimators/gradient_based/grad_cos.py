"""Cosines of gradients at the trained model: which way an example pulls, whatever how strongly."""

from __future__ import annotations

from typing import ClassVar

from estimators.gradient_based.projected_products import ProductEstimator


class GradCos(ProductEstimator):
    """tau[i, q] = - cos(grad f_q, grad loss_i) at the last checkpoint, averaged over models; in [-1, 1], unit-free.

    Charpiat et al. 2019, section 2.2: the similarity of two examples as the network sees them, which no gradient's length
    enters: an example that is fitted counts as much as one that is not. `gas` sums the same over a training's checkpoints.
    An example without a gradient gets 0. Costs a gradient of every example, and at most n t p operations.

    With a `projection` it is the cosine of the projected gradients, cos(P^T grad f_q, P^T grad loss_i), and with `store` the rows
    (n, k) of the training examples are kept: a new query costs its own gradient and 2 n k operations.

    >>> from estimators.gradient_based.grad_cos import GradCos
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = GradCos().attribute(evidence)
    >>> made.values.shape, bool(abs(made.values).max() <= 1)
    ((24, 4), True)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > odd)  # the query's margin gains more from its own class
    True
    """

    name: ClassVar[str] = "grad_cos"
    normalizing: ClassVar[bool] = True
