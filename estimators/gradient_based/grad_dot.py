"""Inner products of gradients at the trained model: one step on an example, and what it does to the measure."""

from __future__ import annotations

from typing import ClassVar

from estimators.gradient_based.projected_products import ProductEstimator


class GradDot(ProductEstimator):
    """tau[i, q] = - <grad f_q, grad loss_i> at the last checkpoint, averaged over models.

    Charpiat et al. 2019, section 2.1: by how much, to first order, a gradient step of rate 1 on example i moves the measure f
    of query q. It is TracIn at the trained model alone, and influence with the identity for a curvature. Unit-free: the step's
    size is nobody's. Examples with a large loss count for most, whatever the query. Costs a gradient of every example, and at
    most n t p operations.

    With a `projection` both gradients are projected first, P^T grad: inner products are kept in expectation, and with `store` the
    rows (n, k) of the training examples are kept, so that a new query costs its own gradient and 2 n k operations.

    >>> from estimators.gradient_based.grad_dot import GradDot
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = GradDot().attribute(evidence)
    >>> made.values.shape, made.models
    ((24, 4), 2)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "grad_dot"
