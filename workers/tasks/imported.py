"""Runs that were made elsewhere: how many examples and queries there are, and nothing to train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.errors import TaskError
from workers.tasks import arguments
from workers.tasks.arguments import checked


class ImportedTask:
    """The task of a sweep that `counterfactory import` made."""

    @checked
    def __init__(self, n: arguments.Count, t: arguments.QueryCount):
        self.n, self.t = n, t

    def train(self, subset: NDArray[np.int64], seed: int) -> Any:
        """Raise TaskError: there is nothing to train."""
        raise TaskError("imported runs cannot be trained: they were made elsewhere")

    def measure(self, model: Any) -> Mapping[str, NDArray[np.floating[Any]]]:
        """Raise TaskError: there is no model."""
        raise TaskError("imported runs cannot be measured: they were made elsewhere")

    def describe(self) -> str:
        """Return one line about it."""
        return f"Imported runs: {self.n:,} training examples, {self.t:,} queries"
