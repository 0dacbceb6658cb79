"""The derivative of a measure in every example's weight, through all steps of the training."""

from __future__ import annotations

from typing import ClassVar

from estimators.gradient_based.walked import WalkEstimator


class Unrolled(WalkEstimator):
    """tau[i, q] = d f_q(theta_T) / d w_i at w = 1, through every step of the training; averaged over models.

    The exact derivative of the run that was made: w_i multiplies the loss of example i wherever it comes, and batches, learning
    rates, dropout and augmentation stay what they were (Maclaurin et al. 2015; Ilyas & Engstrom 2025, MAGIC).
    Steps are replayed from the checkpoints and taken backwards: each one's update by its adjoint (momentum, Nesterov, Adam and
    AdamW with `eps` in the denominator or in the root, weight decay, clipping, accumulation, averages), its gradient by
    differentiating twice, so that what couples the examples of a batch, and the running statistics of batch normalizations, are
    in it.

    In `order: shared` removing an example is a step of -1 in its weight, and tau is its first order. In `order: own` a run
    without the example has other batches; tau is then the derivative for the batches of the reference run. Where the training is
    not smooth (a rate at the edge of stability, ReLU, Adam with a small eps), a derivative says little of a step of that length.

    Costs the training twice, and per query about a training's products of matrices twice; holds moments of about two roots of
    the number of steps, and per query as much as the parameters and the optimizer's moments. With `optimizer_state: true` and
    more checkpoints in the design less is replayed.

    >>> from estimators.gradient_based.unrolled import Unrolled
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Unrolled(models=1).attribute(evidence)
    >>> made.values.shape, made.details["steps"]
    ((24, 4), 60)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "unrolled"
    in_units: ClassVar[bool] = True
