"""Masks that a source keeps as lists of examples: those that a subset has, or those that it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.errors import DataError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class SparseMasks:
    """Masks (s, n) kept as the examples of each subset; rows are made dense when they are read."""

    examples: Indices
    """The examples of all subsets, one subset after the other."""
    starts: Indices
    """(s + 1,) where each subset begins, and the end of the last."""
    n: int
    left_out: bool = False
    """Whether the examples are those that a subset lacks."""

    @classmethod
    def of(cls, lists: Sequence[NDArray[Any]], n: int, where: str, *, left_out: bool = False) -> SparseMasks:
        """Return the masks of s lists of examples. Raises DataError for one named twice, or none of 0..n-1."""
        examples = np.concatenate([_whole(found, where) for found in lists]) if lists else np.empty(0, np.int64)
        masks = cls(examples, np.cumsum([0, *map(len, lists)]), n, left_out)
        masks.refuse_outside(where)
        twice = [row for row, found in enumerate(lists) if len(np.unique(found)) != len(found)]
        if twice:
            count = len(lists[twice[0]]) - len(np.unique(lists[twice[0]]))
            raise DataError(f"{where}: list {twice[0]} names {count} examples twice, of {len(lists[twice[0]])}")
        return masks

    @property
    def shape(self) -> tuple[int, int]:
        """(s, n)."""
        return len(self.starts) - 1, self.n

    def __getitem__(self, rows: Indices) -> NDArray[np.bool_]:
        """Return dense rows (b, n)."""
        masks = np.full((len(rows), self.n), self.left_out)
        for place, row in enumerate(rows):
            masks[place, self.examples[self.starts[row] : self.starts[row + 1]]] = not self.left_out
        return masks

    def refuse_outside(self, where: str) -> None:
        """Raise DataError for examples that are not 0..n-1, with their number."""
        outside = (self.examples < 0) | (self.examples >= self.n)
        if outside.any():
            raise DataError(
                f"{where}: {int(outside.sum())} of {len(self.examples)} examples are not in 0..{self.n - 1}, such as "
                f"{self.examples[outside][0]}: is n right?"
            )


def _whole(found: NDArray[Any], where: str) -> Indices:
    """Return examples as integers; floats may hold them. Raises DataError for anything that is no list of whole numbers."""
    numbers = np.issubdtype(found.dtype, np.integer) or np.issubdtype(found.dtype, np.floating)
    if found.ndim != 1 or not numbers:
        raise DataError(f"{where}: expected lists of examples, found {found.dtype} of shape {found.shape}")
    with np.errstate(invalid="ignore"):
        whole = found.astype(np.int64)
    if (whole != found).any():
        raise DataError(f"{where}: expected whole numbers, found {found[whole != found][0]}")
    return whole
