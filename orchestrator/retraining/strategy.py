"""How a sweep's packs are trained: chosen once, by measurement, and kept with the sweep.

Two ways of training agree to rounding only. A sweep that goes on in another process, or after its machine's cache was cleared,
must not change its way, or its rows would no longer be those of an undisturbed one.
"""

from __future__ import annotations

import json

import torch

from orchestrator.execution.pool import Work
from orchestrator.execution.resources import resolve_device
from orchestrator.store.durable import write_atomically
from orchestrator.sweeps.strategy_record import read_strategy
from orchestrator.sweeps.sweep import Sweep
from workers.packed.calibration import calibrated
from workers.packed.strategy import Strategy
from workers.task import DifferentiableTask

WIDE = 64
"""Runs a pack from which its size does not decide how many are trained together."""


def strategy_of(sweep: Sweep, device: str, threads: int, begun: bool) -> Strategy | None:
    """Return the sweep's strategy, measured here if it has none; None for a black box, and where only workers have the device.

    One that is left because a short training failed is kept as any other, so that a sweep that has `begun` does not change its
    way; before its first run is done it is measured anew. Raises StoreError where what the sweep keeps of it is damaged.
    """
    if device != "cpu" or not isinstance(sweep.task, DifferentiableTask):
        return None
    kept = read_strategy(sweep)
    if kept is not None and (begun or not kept.failed):
        return kept
    here = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pack = sweep.config.pack
        found = calibrated(sweep.task, device, pack if isinstance(pack, int) and pack < WIDE else None)
    finally:
        torch.set_num_threads(here)
    if sweep.paths.root.is_dir():
        write_atomically(sweep.paths.calibration, json.dumps(found.to_json(), indent=1).encode())
    return found


def work_of(sweep: Sweep, begun: bool = True) -> Work:
    """Return what is the same for all packs of a sweep; whether it has `begun`, that is, has finished runs."""
    settings = sweep.config.ray
    device, threads = resolve_device(settings), max(1, int(settings.num_cpus))
    strategy = strategy_of(sweep, device, threads, begun)
    return Work(sweep.spec, sweep.config.measures, sweep.queries, device, threads, strategy, sweep.data_sets)
