"""The k largest values of every query, exactly, from some examples at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class Strongest:
    """The k largest of every query's values, the largest first; of equal ones the lower index.

    >>> import numpy as np
    >>> from orchestrator.attribution.strongest import Strongest
    >>> strongest = Strongest(queries=1, k=2)
    >>> strongest.add(0, np.array([[1.0], [5.0]]))
    >>> strongest.add(2, np.array([[5.0], [2.0]]))
    >>> strongest.of(0)
    (array([1, 2]), array([5., 5.]))
    """

    def __init__(self, queries: int, k: int):
        self._k = k
        self._found: list[tuple[NDArray[np.int64], Floats]] = [
            (np.zeros(0, dtype=np.int64), np.zeros(0)) for _ in range(queries)
        ]

    def add(self, start: int, values: Floats) -> None:
        """Look at the values (b, q) of the examples from `start` on, which come after all that were seen."""
        if self._k == 0:
            return
        # What is below a block's own k-th value is not among the k largest of all.
        place = max(0, len(values) - self._k)
        least = np.partition(values, place, axis=0)[place]
        for query, (indices, held) in enumerate(self._found):
            column = values[:, query]
            chosen = np.flatnonzero(column >= least[query])
            together = np.concatenate([indices, chosen + start]), np.concatenate([held, column[chosen]])
            order = np.argsort(-together[1], kind="stable")[: self._k]
            self._found[query] = together[0][order], together[1][order]

    def of(self, query: int) -> tuple[NDArray[np.int64], Floats]:
        """Return the examples (k,) and their values (k,) for one query; fewer where fewer were seen."""
        return self._found[query]
