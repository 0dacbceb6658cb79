"""Subsets that the user brings: a file of masks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Need
from orchestrator.designs.base import Context, Design, ErrorForecast, read_array
from workers.errors import ConfigError


@lru_cache(maxsize=4)
def _load(path: Path, key: str, modified: int) -> NDArray[np.generic]:
    """Load a mask file once for each time it was written (`modified`)."""
    return read_array(path, key)


class Explicit(Design):
    """The rows of a .npy file, (subsets, n) bool or 0/1.

    For subsets of your own, such as all subsets of a dozen examples, or those of a published ground truth. Estimators can assume
    nothing of how they were drawn.
    """

    serves: ClassVar[frozenset[Need]] = frozenset({"subsets", "permutations"})
    watched_by: ClassVar[str | None] = "difference_in_means"
    error_forecast: ClassVar[ErrorForecast | None] = ErrorForecast.RANDOM_SUBSETS
    measured_by: ClassVar[frozenset[str]] = frozenset({"difference_in_means", "memorization"})
    from_outside: ClassVar[bool] = True

    kind: Literal["explicit"]
    masks: str = Field(description="path of a .npy file, (subsets, n) bool or 0/1 integers")

    take: float = Field(1.0, gt=0, le=1, description="fraction of the rows that is used, from the first")

    def sample(self, fraction: float) -> Explicit:
        """Use fewer of the rows."""
        return self.model_copy(update={"take": self.take * fraction})

    def rows(self, context: Context) -> NDArray[np.generic]:
        """Return all masks (subsets, n), mapped. Raises ConfigError for an unreadable or ill-shaped file."""
        path = context.folder / self.masks
        masks = _load(path, f"designs.{context.name}.masks", path.stat().st_mtime_ns if path.exists() else 0)
        if masks.ndim != 2 or masks.shape[1] != context.n or not len(masks):
            raise ConfigError(
                f"designs.{context.name}.masks: {path} has shape {masks.shape}, expected (subsets, {context.n})"
            )
        return masks

    def check(self, context: Context) -> None:
        """Refuse values other than 0 and 1, and empty subsets."""
        masks = self.rows(context)
        if masks.dtype != bool and not np.isin(masks, (0, 1)).all():
            raise ConfigError(f"designs.{context.name}.masks: expected bool or 0/1, found other values ({masks.dtype})")
        empty = np.flatnonzero(~masks.astype(bool).any(axis=1))
        if len(empty):
            raise ConfigError(f"designs.{context.name}.masks: row {empty[0]} is an empty subset")

    def count(self, context: Context) -> int:
        """Return the number of rows used."""
        return max(1, round(self.take * len(self.rows(context))))

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Return one row (n,)."""
        row: NDArray[np.bool_] = self.rows(context)[index].astype(bool)
        return row
