"""Runs that were made elsewhere: their subsets are in the sweep's store, where `counterfactory import` wrote them."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Need
from orchestrator.designs.base import Context, Design
from workers.errors import ConfigError


class Imported(Design):
    """Runs that can be looked at and not drawn; a row a run, repeats of a subset included."""

    serves: ClassVar[frozenset[Need]] = frozenset({"subsets", "permutations"})
    drawable: ClassVar[bool] = False
    keeps_its_side: ClassVar[bool] = True

    kind: Literal["imported"]
    runs: int = Field(ge=1, description="number of runs")
    source: str = Field(description="what they were read from")

    def count(self, context: Context) -> int:
        """Return the number of runs."""
        return self.runs

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Raise ConfigError: the subsets are in the store and nowhere else."""
        raise ConfigError(f"designs.{context.name}: its runs were imported and cannot be drawn")
