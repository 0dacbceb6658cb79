"""One number an example, from its attributions for many queries: how helpful it is, how suspicious it looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workers.errors import ConfigError
from workers.measures import direction
from workers.runs import Queries

Better = Literal["higher", "lower"] | None


@dataclass(frozen=True)
class Valued:
    """An attribution, ready to be boiled down to one number an example."""

    values: NDArray[np.floating[Any]]
    """(n, t)"""
    utility: NDArray[np.floating[Any]] | None
    """(n,) the values of the utility, where the estimator gave them."""
    measure: str
    queries: Queries

    def effect(self) -> NDArray[np.float64]:
        """Return (n,) the effect of including each example on the measure's mean over the queries."""
        found = self.values.mean(axis=1, dtype=np.float64) if self.utility is None else self.utility
        return np.asarray(found, dtype=np.float64)

    def helpfulness(self, better: Better) -> NDArray[np.float64]:
        """Return (n,), high for helpful examples: the effect, negated for a measure of which lower values are better."""
        return direction(self.measure, better) * self.effect()

    def suspicion(self, better: Better) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return examples (k,) and numbers (k,) that are high for those that look mislabelled.

        Where the queries are training examples: by how much an example improves its own output, since only models that saw a
        wrong label give it back. Else: how little it helps the queries. Either is negated where lower values are better.
        """
        if self.queries.source == "train":
            examples, effects = own_effects(self.values, self.queries)
            return examples, direction(self.measure, better) * effects
        return np.arange(len(self.values)), -self.helpfulness(better)


def own_effects(tau: NDArray[np.floating[Any]], queries: Queries) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the training examples among the queries (k,) and each one's effect on its own output, from tau (n, t).

    With any attribution (or its standard errors) of queries that are training examples; k = t. Raises ConfigError for
    other queries.
    """
    if queries.source != "train":
        raise ConfigError("an example's effect on its own output needs queries that are training examples")
    examples = queries.take(len(tau))
    return examples, tau[examples, np.arange(len(examples))].astype(np.float64)
