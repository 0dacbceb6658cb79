"""Runs made elsewhere, as every format is read: rows of masks, rows of outputs, and which belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.imports.files import beside, open_array
from orchestrator.imports.sparse_masks import Indices
from workers.errors import DataError

SEEDS = "_seeds"
"""Name of an array beside masks, (s,) or (s, seeds): the seeds of the runs."""


class Rows(Protocol):
    """A matrix that can be read some rows at a time: an array, a mapped file, or `SparseMasks`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its two lengths."""

    def __getitem__(self, rows: Indices) -> NDArray[Any]:
        """Return the given rows."""


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
    seeds: NDArray[np.uint32] | None = None
    """(m,) the seed of each run; None where the source does not say."""
    measure: str = "margin"
    """What the outputs are called unless the user says otherwise."""
    negated: bool = False
    """Whether `block` turns the sign of the outputs, because the source keeps them negated."""
    orientation: str = ""
    """What was made of the source's way to say what a subset is, where it is not by what is kept; for people."""
    others: Mapping[str, ForeignRuns] = field(default_factory=dict)
    """Runs of other subsets that the source has beside these, by what they are: `leave_one_out`, `full`."""

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

    @property
    def done(self) -> str:
        """What was done to what the source holds, in a line; empty when nothing was."""
        sign = f"outputs are minus those of {self.outputs_file.name}, which keeps them negated" if self.negated else ""
        return "; ".join(filter(None, (self.orientation, sign)))

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
        return masks, -outputs if self.negated else outputs


def match(
    label: str, where: Path, masks: Rows, outputs_file: Path, completed: NDArray[np.bool_] | None = None
) -> ForeignRuns:
    """Bring masks (s, n) and a file of outputs (s, t) or (s, seeds, t) together; rows not `completed` (s,) are left out.

    Raises DataError, with the counts, for shapes that do not fit.
    """
    return match_arrays(label, where, masks, outputs_file, open_array(outputs_file), completed)


def match_arrays(
    label: str,
    where: Path,
    masks: Rows,
    outputs_file: Path,
    outputs: NDArray[Any],
    completed: NDArray[np.bool_] | None = None,
) -> ForeignRuns:
    """As `match`, for outputs that were read from `outputs_file` already."""
    _refuse_shapes(where, masks, outputs)
    subsets = masks.shape[0]
    for what, count in (("outputs", len(outputs)), ("_completed", subsets if completed is None else len(completed))):
        if count != subsets:
            raise DataError(f"{where}: masks have {subsets} rows and {what} {count}: they do not belong together")
    repeats = outputs.shape[1] if outputs.ndim == 3 else 1
    mask_rows = np.arange(subsets) if completed is None else np.flatnonzero(completed)
    if not len(mask_rows):
        raise DataError(f"{where}: none of its {subsets} rows is completed")
    unfinished = subsets - len(mask_rows)
    output_rows = (mask_rows[:, None] * repeats + np.arange(repeats)).ravel()
    seeds = _seeds(where, (subsets, repeats))
    return ForeignRuns(
        label,
        str(where),
        outputs_file,
        masks,
        outputs.reshape(subsets * repeats, outputs.shape[-1]),
        mask_rows.repeat(repeats),
        output_rows,
        f"{unfinished:,} of {subsets:,} rows are not completed" if unfinished else "",
        None if seeds is None else seeds[output_rows],
    )


def _refuse_shapes(where: Path, masks: Rows, outputs: NDArray[Any]) -> None:
    """Raise DataError for arrays that cannot be masks and outputs."""
    if len(masks.shape) != 2 or not all(masks.shape):
        raise DataError(f"{where}: masks have shape {masks.shape}, expected (runs, examples)")
    if outputs.ndim not in (2, 3) or not outputs.size:
        raise DataError(
            f"{where}: outputs have shape {outputs.shape}, expected (runs, queries) or (subsets, seeds, queries)"
        )
    if not np.issubdtype(outputs.dtype, np.number) or np.issubdtype(outputs.dtype, np.complexfloating):
        raise DataError(f"{where}: outputs are {outputs.dtype}, expected real numbers")


def _seeds(where: Path, shape: tuple[int, int]) -> NDArray[np.uint32] | None:
    """Return the seeds beside a source, (subsets * repeats,); None where there are none."""
    path = beside(where, SEEDS)
    if path is None:
        return None
    found = open_array(path)
    if found.size != shape[0] * shape[1] or found.shape[0] != shape[0]:
        raise DataError(f"{path}: has shape {found.shape}, expected a seed a run, {shape}")
    return as_seeds(found.ravel(), str(path))


def as_seeds(found: NDArray[Any], where: str) -> NDArray[np.uint32]:
    """Return seeds as the store keeps them. Raises DataError for what is no whole number below 2**32."""
    if not np.issubdtype(found.dtype, np.integer) or (found < 0).any() or (found >= 2**32).any():
        raise DataError(f"{where}: expected seeds, whole numbers from 0 to 2**32 - 1")
    return found.astype(np.uint32)
