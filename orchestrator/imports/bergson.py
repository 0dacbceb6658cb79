"""bergson's banks of retrained models: what each left out, and the query losses that were cached of it.

subsets.json                    lists of the examples that were left out, a list a model
query_loss_cache/losses_*.pt    per_subset (s, t) or (s,); baseline_per_doc (t,) and baseline, of the full set, 0 if not measured

A folder of such banks, with the same subsets, is one set of runs: each bank is a repeat.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import loading
from orchestrator.imports import torch_files
from orchestrator.imports.foreign_runs import ForeignRuns, match_arrays
from orchestrator.imports.sparse_masks import SparseMasks
from workers.errors import ConfigError, DataError

SUBSETS, CACHE, CONFIG = "subsets.json", "query_loss_cache", "config.yaml"
LABEL = "bergson banks"


def detect(source: Path) -> bool:
    """Say whether a source looks like this."""
    return source.is_dir() and bool(_banks(source))


def read(source: Path, outputs: str | None, n: int | None) -> ForeignRuns:
    """Return the runs of a bank, or of several with the same subsets. Raises DataError, ConfigError."""
    if n is None:
        raise ConfigError(f"{source}: does not say how many training examples there were; give --n")
    banks = _banks(source)
    subsets = [_subsets(bank) for bank in banks]
    for bank, found in zip(banks, subsets, strict=True):
        if found != subsets[0]:
            raise DataError(f"{bank / SUBSETS}: lists other subsets than {banks[0] / SUBSETS}: these are not repeats")
        _refuse_weighted(bank)
    lists = [np.array(left_out, dtype=np.int64) for left_out in subsets[0]]
    where = str(banks[0] / SUBSETS)
    masks = SparseMasks.of(lists, n, where, left_out=True)
    files = [_losses_file(bank, outputs) for bank in banks]
    losses = [_Losses(file) for file in files]
    shapes = {found.per_subset.shape for found in losses}
    if len(shapes) > 1:
        raise DataError(f"{source}: the banks have losses of different shapes, {sorted(shapes)}")
    per_subset = np.stack([found.per_subset for found in losses], axis=1)
    runs = match_arrays(LABEL, source, masks, files[0], per_subset)
    orientation = f"{SUBSETS} lists what was left out: kept are the others"
    return replace(runs, measure="loss", orientation=orientation, others=_full(source, n, files[0], losses))


def _full(source: Path, n: int, file: Path, losses: list[_Losses]) -> dict[str, ForeignRuns]:
    """Return the runs on the full set, a repeat a bank, where every bank measured one."""
    baselines = [found.baseline for found in losses]
    known = [one for one in baselines if one is not None]
    if len(known) < len(baselines):
        return {}
    nothing = SparseMasks.of([np.empty(0, np.int64)], n, str(source), left_out=True)
    runs = match_arrays(LABEL, source, nothing, file, np.stack(known)[None])
    return {"full": replace(runs, measure="loss")}


class _Losses:
    """One cache file: s subsets, t queries."""

    def __init__(self, path: Path):
        found = torch_files.load(path)
        if not isinstance(found, dict) or "per_subset" not in found:
            raise DataError(f"{path}: expected a dict with the keys baseline, baseline_per_doc, per_subset")
        losses = torch_files.to_array(found["per_subset"], str(path))
        if losses.ndim not in (1, 2):
            raise DataError(f"{path}: per_subset has shape {losses.shape}, expected (subsets, queries)")
        self.per_subset = losses.reshape(len(losses), -1)
        """(s, t)"""
        self.baseline = self._baseline(path, found, one_query=losses.ndim == 1)
        """(t,), or None where it was not measured."""

    def _baseline(self, path: Path, found: dict[str, Any], *, one_query: bool) -> NDArray[Any] | None:
        if one_query:
            value = found.get("baseline", 0.0)
            baseline = np.array([value]) if isinstance(value, float | int) else torch_files.to_array(value, str(path))
        elif "baseline_per_doc" in found:
            baseline = torch_files.to_array(found["baseline_per_doc"], str(path))
        else:
            return None
        baseline = baseline.reshape(-1)
        if baseline.shape != self.per_subset.shape[1:]:
            raise DataError(f"{path}: the baseline has shape {baseline.shape}, expected {self.per_subset.shape[1:]}")
        return baseline if baseline.any() else None


def _banks(source: Path) -> list[Path]:
    """Return the source itself if it is a bank, else the banks in it, by name."""
    return [source] if (source / SUBSETS).is_file() else sorted(path.parent for path in source.glob(f"*/{SUBSETS}"))


def _subsets(bank: Path) -> list[list[int]]:
    path = bank / SUBSETS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, list) or not found or not all(isinstance(one, list) for one in found):
        raise DataError(f"{path}: expected lists of the examples that were left out")
    if not all(type(example) is int for one in found for example in one):
        raise DataError(f"{path}: expected whole numbers in its lists")
    return found


def _losses_file(bank: Path, named: str | None) -> Path:
    """Return the cache file `named`, else the only one."""
    found = sorted((bank / CACHE).glob("losses_*.pt"))
    if named is not None:
        found = [path for path in found if named in (path.name, path.stem)] or [
            path for path in (bank / named, Path(named)) if path.is_file()
        ]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        wanted = f"losses named {named!r}" if named is not None else "one file losses_*.pt"
        raise DataError(f"{bank / CACHE}: expected {wanted}, found {names}; name it with --outputs")
    return found[0]


def _refuse_weighted(bank: Path) -> None:
    """Raise DataError when the examples listed kept a weight: then nothing was left out."""
    path = bank / CONFIG
    if not path.is_file():
        return
    steps = loading.read(path).get("steps")
    commands = [command for step in steps if isinstance(step, dict) for command in step.values()] if steps else []
    weights = [command.get("subset_weight") for command in commands if isinstance(command, dict)]
    weight = next((weight for weight in weights if weight), None)
    if weight:
        raise DataError(f"{path}: subset_weight is {weight}: its subsets are weighted down and not left out")
