"""Runs that were made elsewhere: their subsets are in the sweep's store, where `counterfactory import` wrote them."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from estimators.contract import Need
from orchestrator.designs.base import Context, Design
from workers.errors import ConfigError


class _Imported(Design):
    """Runs that can be looked at and not drawn; a row a run, repeats of a subset included."""

    drawable: ClassVar[bool] = False
    keeps_its_side: ClassVar[bool] = True

    @model_validator(mode="after")
    def _order_is_not_ours(self) -> _Imported:
        if self.order != "own":
            raise ValueError("order: says how runs are trained, and these were trained elsewhere")
        return self

    runs: int = Field(ge=1, description="number of runs")
    source: str = Field(description="what they were read from")

    def count(self, context: Context) -> int:
        """Return the number of runs."""
        return self.runs

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Raise ConfigError: the subsets are in the store and nowhere else."""
        raise ConfigError(f"designs.{context.name}: its runs were imported and cannot be drawn")


class Imported(_Imported):
    """Runs of any subsets, made elsewhere. `counterfactory import` writes this section."""

    serves: ClassVar[frozenset[Need]] = frozenset({"subsets", "permutations"})

    kind: Literal["imported"]


class ImportedLeaveOneOut(_Imported):
    """Runs that each left one example out, made elsewhere. `counterfactory import` writes this section."""

    serves: ClassVar[frozenset[Need]] = frozenset({"leave_one_out"})
    law: ClassVar[str | None] = "leave_one_out"

    kind: Literal["imported_leave_one_out"]


class ImportedFull(_Imported):
    """Runs on the full set, made elsewhere. `counterfactory import` writes this section."""

    serves: ClassVar[frozenset[Need]] = frozenset({"full"})
    law: ClassVar[str | None] = "full"

    kind: Literal["imported_full"]
