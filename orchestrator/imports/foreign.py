"""Runs made elsewhere, as every format is read: rows of masks, rows of outputs, and which belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.imports.files import open_array
from workers.errors import DataError

Indices = NDArray[np.int64]


class Rows(Protocol):
    """A matrix that can be read some rows at a time: an array, a mapped file, or `SparseMasks`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its two lengths."""

    def __getitem__(self, rows: Indices) -> NDArray[Any]:
        """Return the given rows."""


@dataclass(frozen=True)
class SparseMasks:
    """Masks (s, n) kept as the examples of each subset; rows are made dense when they are read."""

    examples: Indices
    """The examples of all subsets, one subset after the other."""
    starts: Indices
    """(s + 1,) where each subset begins, and the end of the last."""
    n: int

    @property
    def shape(self) -> tuple[int, int]:
        """(s, n)."""
        return len(self.starts) - 1, self.n

    def __getitem__(self, rows: Indices) -> NDArray[np.bool_]:
        """Return dense rows (b, n)."""
        masks = np.zeros((len(rows), self.n), dtype=bool)
        for place, row in enumerate(rows):
            masks[place, self.examples[self.starts[row] : self.starts[row + 1]]] = True
        return masks

    def refuse_outside(self, where: str) -> None:
        """Raise DataError for examples that are not 0..n-1, with their number."""
        outside = (self.examples < 0) | (self.examples >= self.n)
        if outside.any():
            raise DataError(
                f"{where}: {int(outside.sum())} of {len(self.examples)} examples are not in 0..{self.n - 1}, such as "
                f"{self.examples[outside][0]}: is n right?"
            )


@dataclass(frozen=True)
class ForeignRuns:
    """The m runs of one source; nothing of it is in memory until `block` reads it."""

    format: str
    """What made it, for people."""
    where: str
    """The source as the user named it."""
    outputs_file: Path
    masks: Rows
    """(s, n) 0/1, a row a subset or a run."""
    outputs: Rows
    """(r, t) floating, a row a run."""
    mask_rows: Indices
    """(m,) the row of `masks` of each run."""
    output_rows: Indices
    """(m,) the row of `outputs` of each run."""
    left_out: str = ""
    """Which rows of the source are not among the runs, and why; empty when all are."""

    @property
    def n(self) -> int:
        """Number of training examples."""
        return self.masks.shape[1]

    @property
    def t(self) -> int:
        """Number of queries."""
        return self.outputs.shape[1]

    def __len__(self) -> int:
        return len(self.mask_rows)

    def block(self, runs: Indices) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Read some runs: masks (b, n) and outputs (b, t). Raises DataError for masks that are not 0 or 1."""
        masks = np.asarray(self.masks[self.mask_rows[runs]])
        if masks.dtype != np.bool_:
            strange = (masks != 0) & (masks != 1)
            if strange.any():
                raise DataError(
                    f"{self.where}: masks contain values that are neither 0 nor 1, such as {masks[strange][0]!r} "
                    f"({int(strange.sum())} in runs {runs[0]} to {runs[-1]})"
                )
            masks = masks.astype(np.bool_)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is left out as such
            outputs = np.asarray(self.outputs[self.output_rows[runs]]).astype(np.float32)
        return masks, outputs


def match(
    label: str, where: Path, masks: Rows, outputs_file: Path, completed: NDArray[np.bool_] | None = None
) -> ForeignRuns:
    """Bring masks (s, n) and a file of outputs (s, t) or (s, seeds, t) together; rows not `completed` (s,) are left out.

    Raises DataError, with the counts, for shapes that do not fit.
    """
    outputs = open_array(outputs_file)
    if len(masks.shape) != 2 or not all(masks.shape):
        raise DataError(f"{where}: masks have shape {masks.shape}, expected (runs, examples)")
    if outputs.ndim not in (2, 3) or not outputs.size:
        raise DataError(
            f"{where}: outputs have shape {outputs.shape}, expected (runs, queries) or (subsets, seeds, queries)"
        )
    if not np.issubdtype(outputs.dtype, np.number) or np.issubdtype(outputs.dtype, np.complexfloating):
        raise DataError(f"{where}: outputs are {outputs.dtype}, expected real numbers")
    subsets = masks.shape[0]
    for what, count in (("outputs", len(outputs)), ("_completed", subsets if completed is None else len(completed))):
        if count != subsets:
            raise DataError(f"{where}: masks have {subsets} rows and {what} {count}: they do not belong together")
    seeds = outputs.shape[1] if outputs.ndim == 3 else 1
    mask_rows = np.arange(subsets) if completed is None else np.flatnonzero(completed)
    if not len(mask_rows):
        raise DataError(f"{where}: none of its {subsets} rows is completed")
    unfinished = subsets - len(mask_rows)
    return ForeignRuns(
        label,
        str(where),
        outputs_file,
        masks,
        outputs.reshape(subsets * seeds, outputs.shape[-1]),
        mask_rows.repeat(seeds),
        (mask_rows[:, None] * seeds + np.arange(seeds)).ravel(),
        f"{unfinished:,} of {subsets:,} rows are not completed" if unfinished else "",
    )
