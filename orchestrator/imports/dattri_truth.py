"""dattri's hosted ground truth: kept indices and target values, in one folder or in `lds/` and `loo/` below it.

indices_lds.pt   (s, k)   the examples of each subset      target_values_lds.pt   (s, t)   minus the target
indices_loo.pt   (m,)     the example that was left out    target_values_loo.pt   (m, t)   the target

The signs are those of dattri's `calculate_lds_ground_truth`, which negates, and `calculate_loo_ground_truth`, which does not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orchestrator.imports.files import open_array, outputs_file
from orchestrator.imports.foreign_runs import ForeignRuns, match
from orchestrator.imports.sparse_masks import SparseMasks
from workers.errors import ConfigError, DataError

LABEL = "dattri ground truth"
MEASURE = "loss"
"""What dattri's benchmarks measure."""


def detect(source: Path) -> bool:
    """Say whether a source looks like this."""
    return source.is_dir() and any(_indices(source, of) for of in ("lds", "loo"))


def read(source: Path, outputs: str | None, n: int | None) -> ForeignRuns:
    """Return the runs of the subsets, and beside them those that left one example out. Raises DataError, ConfigError."""
    path = _indices(source, "lds")
    if path is None:
        raise DataError(f"{source}: has leave-one-out runs alone; expected indices_lds.pt beside them")
    if n is None:
        raise ConfigError(f"{source}: does not say how many training examples there were; give --n")
    indices = open_array(path)
    if indices.ndim != 2:
        raise DataError(f"{path}: has shape {indices.shape}, expected (subsets, examples kept)")
    masks = SparseMasks.of(list(indices), n, str(path))
    values = _values(path, "lds") if outputs is None else outputs_file(path.parent, path, outputs)
    runs = match(LABEL, path.parent, masks, values)
    left_out = _leave_one_out(source, n)
    return replace(
        runs,
        measure=MEASURE,
        negated=values.name == "target_values_lds.pt",
        others={} if left_out is None else {"leave_one_out": left_out},
    )


def _leave_one_out(source: Path, n: int) -> ForeignRuns | None:
    path = _indices(source, "loo")
    if path is None:
        return None
    indices = open_array(path)
    if indices.ndim != 1:
        raise DataError(f"{path}: has shape {indices.shape}, expected (runs,): the example that each left out")
    masks = SparseMasks.of([indices[row : row + 1] for row in range(len(indices))], n, str(path), left_out=True)
    runs = match(LABEL, path.parent, masks, _values(path, "loo"))
    return replace(runs, measure=MEASURE, orientation=f"{path.name} names the example left out: kept are the others")


def _indices(source: Path, of: str) -> Path | None:
    places = (source / f"indices_{of}.pt", source / of / f"indices_{of}.pt")
    return next((path for path in places if path.is_file()), None)


def _values(indices: Path, of: str) -> Path:
    path = indices.with_name(f"target_values_{of}.pt")
    if not path.is_file():
        raise DataError(f"{indices}: there is no {path.name} beside it")
    return path
