"""A sweep inside a sweep's folder: the same task on subsets that an answer of the outer one names."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.config.loading import validate
from orchestrator.config.schema import Config
from orchestrator.store.durable import refusing, remove_folders, write_atomically
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import is_plain, read_plain
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.plan import PROVISIONAL_PACK
from orchestrator.sweeps.sweep import Sweep


def nest(sweep: Sweep, paths: SweepPaths, name: str, masks: Mapping[str, NDArray[np.bool_]], seeds: int) -> Sweep:
    """Return the sweep in `paths` that trains on given subsets: an `explicit` design, by name, for every array (k, n)."""
    config = sweep.config
    runs = seeds * max(len(subsets) for subsets in masks.values())
    preferred = PROVISIONAL_PACK if config.pack == "auto" else config.pack
    raw: dict[str, Any] = {
        "name": name,
        "seed": config.seed,
        "folder": str(paths.root),
        "task": {"name": _absolute(config), "arguments": dict(sweep.spec.arguments)},
        "queries": config.queries.model_dump(),
        "measures": config.measures,
        "designs": {design: {"kind": "explicit", "masks": f"{design}.npy", "seeds": seeds} for design in masks},
        "pack": min(preferred, max(1, math.ceil(runs / 8))),
        "scores": {"lds": None, "loo": None, "detection": None},
        "ray": config.ray.model_dump(),
    }
    return Sweep(validate(raw, str(paths.root)), paths).sharing_task_of(sweep)


def made_for(paths: SweepPaths, masks: Mapping[str, NDArray[np.bool_]]) -> bool:
    """Say whether the nested sweep that a folder holds was made for these subsets."""
    files = {paths.root / f"{design}.npy": _npy(subsets) for design, subsets in masks.items()}
    return all(is_plain(path) and read_plain(path) == content for path, content in files.items())


def write_masks(nested: Sweep, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Write the subsets down where the nested sweep's designs look for them; a folder made for others is removed first."""
    if not _stands(nested, masks):
        _clear(nested.paths)
    for design, subsets in masks.items():
        path = nested.config.folder / f"{design}.npy"
        if not is_plain(path):
            write_atomically(path, _npy(subsets))


def _absolute(config: Config) -> str:
    """Return the task's name; if it is a file, one that is found from another folder too."""
    source, colon, attribute = config.task.name.rpartition(":")
    if not source.endswith(".py"):
        return config.task.name
    return f"{(config.folder / Path(source).expanduser()).resolve()}{colon}{attribute}"


def _stands(nested: Sweep, masks: Mapping[str, NDArray[np.bool_]]) -> bool:
    """Say whether what the folder holds, if anything, was made for these masks."""
    if not nested.paths.config.is_file():
        return not nested.paths.root.exists()
    return made_for(nested.paths, masks) and Sweep.at(nested.paths.root).config.identity() == nested.config.identity()


def _clear(paths: SweepPaths) -> None:
    if paths.runs.exists():
        RunStore.open(paths, write=True).close()  # refuses, by the lease, while another process trains there
    with refusing("remove", paths.root):
        remove_folders(paths.root)


def _npy(masks: NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, masks)
    return buffer.getvalue()
