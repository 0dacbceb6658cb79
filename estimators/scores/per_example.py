"""One number an example, from its attributions for many queries: how helpful it is, how suspicious it looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workers.errors import ConfigError, DataError
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


def own_effects(values: ArrayLike, queries: Queries | ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the training examples among the queries (k,) and each one's effect on its own output, from `values` (n, t).

    `values` is any attribution (or its standard errors) of queries that are training examples, k = t: an array of any real
    type, nested lists, what `OpenedSweep.attribution` returns. `queries` says which training examples they are: the sweep's
    `Queries`, or the positions (t,) themselves. Raises ConfigError for other queries, DataError, one line, for values or
    positions that cannot be meant.

    >>> from estimators.scores import own_effects
    >>> examples, effects = own_effects([[3, 0], [1, 5], [0, 2]], queries=[0, 2])  # the queries are examples 0 and 2
    >>> examples.tolist(), effects.tolist()
    ([0, 2], [3.0, 2.0])
    """
    tau = _table(values)
    n, t = tau.shape
    if isinstance(queries, Queries):
        if queries.source != "train":
            raise ConfigError("an example's effect on its own output needs queries that are training examples")
        queries = queries.take(n)
    examples = _positions(queries, n)
    if len(examples) != t:
        raise DataError(f"values: expected a column for each of the {len(examples)} queries, found shape {tau.shape}")
    return examples, tau[examples, np.arange(t)].astype(np.float64)


def _table(values: ArrayLike) -> NDArray[Any]:
    """Return values (n, t) of a real type."""
    try:
        tau = np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise DataError("values: expected rows of one length, an example each: (n, t)") from error
    if tau.ndim != 2 or not tau.size:
        raise DataError(f"values: expected shape (n, t), an example a row and a query a column, found {tau.shape}")
    if tau.dtype.kind not in "biuf":
        raise DataError(f"values: expected real numbers, found {tau.dtype}")
    return tau


def _positions(queries: ArrayLike, n: int) -> NDArray[np.int64]:
    """Return positions (t,) among n training examples."""
    found = np.asarray(queries)
    if found.ndim != 1 or found.dtype.kind not in "iuf" or (found != np.floor(found)).any():
        raise DataError(
            f"queries: expected positions (t,) of training examples, found {found.dtype} of shape {found.shape}"
        )
    wrong = found[(found < 0) | (found >= n)]
    if len(wrong):
        raise DataError(f"queries: expected positions of training examples, 0 to {n - 1}, found {wrong[0]:g}")
    return found.astype(np.int64)
