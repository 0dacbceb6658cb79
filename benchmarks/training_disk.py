"""The same runs on data that lie on disk and in memory: `python benchmarks/training.py --from-disk`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from training_cases import CASES, benchmark, half_runs, load

from workers import DifferentiableTask, Queries
from workers.data.nested import leaves
from workers.packs import train_pack

CHUNK = 100
"""Examples in a chunk of the Zarr array."""


class Read(NamedTuple):
    """What one place of the data costs against memory."""

    place: str
    disk: float
    memory: float
    """Models a second, the medians of the rounds."""
    ratio: float
    """The median of the rounds' ratios: .95 is a cost of 5%."""
    same: bool
    """Whether every output has the same bits."""
    data: str


def from_disk(name: str, folder: Path, rounds: int) -> Iterator[Read]:
    """Train one run of a case alone, from memory and from disk in alternation, and yield the comparisons."""
    case = CASES[name]
    data = load(case.data, folder)
    memory = benchmark(case, data)
    for place, store in (("a mapped .npy", _npy), ("Zarr", _zarr)):
        with tempfile.TemporaryDirectory() as scratch:
            disk = benchmark(case, data)
            disk.train_inputs = _stored(memory.train_inputs, Path(scratch), store)
            seconds: dict[str, list[float]] = {"disk": [], "memory": []}
            for turn in range(rounds + 1):
                told = {}
                for side, task in (("disk", disk), ("memory", memory)):
                    started = time.process_time()
                    told[side] = _margins(task)
                    if turn:
                        seconds[side].append(time.process_time() - started)
            rates = {side: 1 / np.array(values) for side, values in seconds.items()}
            medians = (float(np.median(values)) for values in (*rates.values(), rates["disk"] / rates["memory"]))
            yield Read(place, *medians, np.array_equal(*told.values()), data.told)


def _margins(task: DifferentiableTask) -> np.ndarray:
    (outcome,) = train_pack(task, half_runs(task.n, 1), ["margin"], Queries(), method="alone")
    if outcome.failure is not None:
        raise RuntimeError(outcome.failure.traceback)
    return outcome.outputs["margin"]


def _stored(inputs: Any, scratch: Path, store: Callable[[Path, np.ndarray], Any]) -> Any:
    """Return the same examples, every part of them on disk."""
    parts = {name: store(scratch / f"part{place}", leaf.numpy()) for place, (name, leaf) in enumerate(leaves(inputs))}
    return parts if isinstance(inputs, dict) else parts[""]


def _npy(path: Path, values: np.ndarray) -> np.ndarray:
    np.save(path.with_suffix(".npy"), values)
    return np.load(path.with_suffix(".npy"), mmap_mode="r")


def _zarr(path: Path, values: np.ndarray) -> Any:
    chunks = (CHUNK, *values.shape[1:])
    zarr.create_array(path, shape=values.shape, chunks=chunks, dtype=values.dtype)[:] = values
    return zarr.open_array(path, mode="r")
