"""Influence and memorization by downsampling: what models say about training examples that they saw, or did not see."""

from __future__ import annotations

from typing import ClassVar

from estimators.contract import Attribution
from estimators.evidence import Evidence
from estimators.retraining_based.difference_in_means import DifferenceInMeans
from workers.errors import ConfigError


class Memorization(DifferenceInMeans):
    """tau[i, q] = E[f_q(S) | i in S] - E[f_q(S) | i not in S], where the queries q are training examples themselves.

    tau[i, i] is the memorization of example i and tau[i, j] its influence on j (Feldman & Zhang 2020,
    by their subsampling estimator); `own_effects` picks the former. Their measure is `correct` or `probability`;
    `margin` keeps telling examples apart where probabilities are all close to 0 or 1. Standard errors are Welch's.

    Raises ConfigError unless the queries are training examples, DataError if an example is in all or none of the subsets.

    >>> from itertools import product
    >>> import numpy as np
    >>> from estimators import Evidence, Runs
    >>> from estimators.retraining_based.memorization import Memorization
    >>> from workers import Queries
    >>> masks = np.array(list(product([False, True], repeat=3)))
    >>> correct = masks.astype(float)
    >>> correct[:, 0] = 1  # example 0 is learned from the others; 1 and 2 are known only to models that saw them
    >>> runs = Runs("fit", "bernoulli", "correct", masks, correct, subsets=np.arange(8), repeats=np.zeros(8, int))
    >>> evidence = Evidence(3, 3, "correct", {"fit": runs}, queries=Queries("train"))
    >>> Memorization().attribute(evidence).values.diagonal().tolist()
    [0.0, 1.0, 1.0]
    """

    name: ClassVar[str] = "memorization"

    def check(self, evidence: Evidence) -> None:
        """Refuse queries that are not training examples."""
        if evidence.queries.source != "train":
            raise ConfigError(
                "memorization: the queries are the task's own, expected training examples; set queries: {source: train}"
            )

    def attribute(self, evidence: Evidence) -> Attribution:
        """Return tau (n, t), in the units of the measure; column q is the training example of query q."""
        self.check(evidence)
        return super().attribute(evidence)
