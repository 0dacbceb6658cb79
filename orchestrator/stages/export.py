"""Runs and attributions in formats that other programs read: Parquet and NumPy's .npz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from orchestrator.store.attributions import list_attributions, read_attribution
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, StoreError

STATES = ("pending", "done", "failed")


def export(sweep: Sweep, store: RunStore, target: Path) -> int:
    """Write the sweep to `target` (.parquet or .npz); return the number of rows or arrays.

    Parquet has one row a run: the subset as the list of its examples, every measure as the list of its outputs. The .npz holds
    masks, seeds, subsets, repeats, states and outputs of every design as arrays, and every attribution.
    """
    if target.suffix not in {".parquet", ".npz"}:
        raise ConfigError(f"--to {target}: expected a name that ends in .parquet or .npz")
    if not target.resolve().parent.is_dir():
        raise StoreError(f"--to {target}: there is no folder {target.resolve().parent}")
    try:
        return _parquet(store, target) if target.suffix == ".parquet" else _npz(sweep, store, target)
    except OSError as error:
        raise StoreError(f"--to {target}: cannot be written: {error}") from error


def _parquet(store: RunStore, target: Path) -> int:
    frames = []
    for name in store.designs:
        masks = store.masks(name)
        frame = {
            "design": name,
            "row": np.arange(len(masks)),
            "subset": store.subsets(name),
            "repeat": store.repeats(name),
            "seed": store.seeds(name),
            "state": np.array(STATES)[store.states(name)],
            "examples": [np.flatnonzero(mask).astype(np.int32) for mask in masks],
        }
        for measure in store.measures:
            frame[measure] = list(store.outputs(name, measure))
        frames.append(pd.DataFrame(frame))
    table = pd.concat(frames, ignore_index=True)
    table.to_parquet(target, index=False)
    return len(table)


def _npz(sweep: Sweep, store: RunStore, target: Path) -> int:
    arrays: dict[str, np.ndarray] = {}
    for name in store.designs:
        arrays |= {
            f"{name}/masks": store.masks(name),
            f"{name}/seeds": store.seeds(name),
            f"{name}/subsets": store.subsets(name),
            f"{name}/repeats": store.repeats(name),
            f"{name}/states": store.states(name),
        }
        for measure in store.measures:
            arrays[f"{name}/outputs/{measure}"] = store.outputs(name, measure)
    for label in list_attributions(sweep.paths):
        arrays[f"attributions/{label}"] = read_attribution(sweep.paths, label)[0]
    np.savez_compressed(target, allow_pickle=False, **arrays)
    return len(arrays)
