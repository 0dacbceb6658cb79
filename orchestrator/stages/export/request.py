"""What is to be exported, and the finished runs of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.attributions import list_attributions, read_attributes_of, read_attribution
from orchestrator.store.ledger import DONE
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, near


@dataclass(frozen=True)
class Request:
    """What is to be written of a sweep, and where."""

    sweep: Sweep
    store: RunStore
    target: Path
    """The file or the folder."""
    design: str | None = None
    """The one design whose runs are written; None: all, or for a format of one truth the one that attributions are judged on."""
    measure: str | None = None
    """The one measure that is written; None: all, or for a format of one measure the sweep's first."""
    mean: bool = False
    """Whether a row is a subset, with the mean over its seeds, and not a run."""

    def designs(self) -> tuple[str, ...]:
        """Return the designs asked for. Raises ConfigError for one that is not there."""
        if self.design is not None and self.design not in self.store.designs:
            raise ConfigError(f"--design: no design {self.design!r}: {near(self.design, list(self.store.designs))}")
        return tuple(self.store.designs) if self.design is None else (self.design,)

    def measures(self) -> tuple[str, ...]:
        """Return the measures asked for. Raises ConfigError for one that is not there."""
        if self.measure is not None and self.measure not in self.store.measures:
            raise ConfigError(
                f"--measure: no measure {self.measure!r}: {near(self.measure, list(self.store.measures))}"
            )
        return self.store.measures if self.measure is None else (self.measure,)

    def attributions(self) -> dict[str, NDArray[np.float32]]:
        """Return the attributions (n, t) of the measures asked for, by label."""
        paths = self.sweep.paths
        of_measure = [
            label for label in list_attributions(paths) if read_attributes_of(paths, label).measure in self.measures()
        ]
        return {label: np.asarray(read_attribution(paths, label).values) for label in of_measure}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    count: int
    unit: str
    """What was counted: rows, arrays, files."""
    said: tuple[str, ...] = field(default=())
    """Lines about what was left out, and what was done to orientation and sign."""


@dataclass(frozen=True)
class FinishedRuns:
    """The finished runs of one design; m rows, a row a run, or a subset where the mean was asked for."""

    design: str
    masks: NDArray[np.bool_]
    """(m, n)"""
    outputs: dict[str, NDArray[np.float32]]
    """(m, t) by measure."""
    seeds: NDArray[np.uint32] | None
    """(m,); None where a row is a mean over seeds."""
    unfinished: int
    """Runs that are left out because they are not finished."""
    weights: NDArray[np.float32] | None = None
    """(m, n) what each example weighs; None where all that are there weigh 1."""

    @property
    def said(self) -> tuple[str, ...]:
        """A line about the runs left out, where there are any."""
        if not self.unfinished:
            return ()
        total = "" if self.seeds is None else f" of {self.unfinished + len(self.masks):,}"
        return (f"{self.design}: {self.unfinished:,}{total} runs are not finished and left out",)


def finished_runs(request: Request, design: str) -> FinishedRuns:
    """Read the finished runs of a design, in their order."""
    store = request.store
    with store.snapshot():
        done = store.states(design) == DONE
        masks, seeds, subsets = store.masks(design)[done], store.seeds(design)[done], store.subsets(design)[done]
        weights = store.weights(design)
        weights = None if weights is None else weights[done]
        outputs = {measure: store.outputs(design, measure)[done] for measure in request.measures()}
    unfinished = int((~done).sum())
    if not request.mean:
        return FinishedRuns(design, masks, outputs, seeds, unfinished, weights)
    _, first, subset, counts = np.unique(subsets, return_index=True, return_inverse=True, return_counts=True)
    means = {}
    for measure, values in outputs.items():
        sums = np.zeros((len(first), values.shape[1]))
        np.add.at(sums, subset, values)
        means[measure] = (sums / counts[:, None]).astype(np.float32)
    return FinishedRuns(design, masks[first], means, None, unfinished, None if weights is None else weights[first])
