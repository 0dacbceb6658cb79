"""How a sweep's packs are trained: chosen once, by measurement, and kept with the sweep.

Two ways of training agree to rounding only. A sweep that goes on in another process, or after its machine's cache was cleared,
must not change its way, or its rows would no longer be those of an undisturbed one.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch
from pydantic import TypeAdapter

from orchestrator.execution.pool import Work
from orchestrator.execution.resources import resolve_device
from orchestrator.store.durable import write_atomically
from orchestrator.store.side_files import read_json
from orchestrator.sweeps.sweep import Sweep
from workers.packed.calibration import calibrated
from workers.packed.strategy import Strategy
from workers.task import DifferentiableTask


def strategy_of(sweep: Sweep, device: str, threads: int) -> Strategy | None:
    """Return the sweep's strategy, measured now if it has none; None for a black box, and where only workers have the device.

    Raises StoreError where what the sweep keeps of it is damaged.
    """
    if device != "cpu" or not isinstance(sweep.task, DifferentiableTask):
        return None
    remedy = "delete it, and the way to train is chosen anew, by measurement"
    kept = read_json(sweep.paths.calibration, remedy, _parsed)
    if kept is not None:
        return kept
    here = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = calibrated(sweep.task, device)
    finally:
        torch.set_num_threads(here)
    if sweep.paths.root.is_dir() and not found.failed:
        write_atomically(sweep.paths.calibration, json.dumps(found.to_json(), indent=1).encode())
    return found


def _parsed(plain: Any) -> Strategy:
    """Return the strategy that a file describes. Raises ValueError, TypeError or KeyError where it describes none."""
    return TypeAdapter(Strategy).validate_python(asdict(Strategy.from_json(plain)))


def work_of(sweep: Sweep) -> Work:
    """Return what is the same for all packs of a sweep."""
    settings = sweep.config.ray
    device, threads = resolve_device(settings), max(1, int(settings.num_cpus))
    return Work(
        sweep.spec,
        sweep.config.measures,
        sweep.queries,
        device,
        threads,
        strategy_of(sweep, device, threads),
        sweep.data_sets,
    )
