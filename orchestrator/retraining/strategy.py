"""How a sweep's packs are trained: chosen once, by measurement, and kept with the sweep.

Two ways of training agree to rounding only. A sweep that goes on in another process, or after its machine's cache was cleared,
must not change its way, or its rows would no longer be those of an undisturbed one.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import torch

from orchestrator.execution.pool import Work
from orchestrator.execution.resources import resolve_device
from orchestrator.store.durable import write_atomically
from orchestrator.sweeps.sweep import Sweep
from workers.packed.calibration import calibrated
from workers.packed.plan import Plan
from workers.task import DifferentiableTask


def training_plan(sweep: Sweep, device: str, threads: int) -> Plan | None:
    """Return the sweep's plan, measuring it now if it has none; None for a black box, and where only workers have the device."""
    if device != "cpu" or not isinstance(sweep.task, DifferentiableTask):
        return None
    if sweep.paths.calibration.is_file():
        return Plan(**json.loads(sweep.paths.calibration.read_text(encoding="utf-8")))
    here = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        plan = calibrated(sweep.task, device)
    finally:
        torch.set_num_threads(here)
    if sweep.paths.root.is_dir() and not plan.failed:
        write_atomically(sweep.paths.calibration, json.dumps(asdict(plan), indent=1).encode())
    return plan


def work_of(sweep: Sweep) -> Work:
    """Return what is the same for all packs of a sweep."""
    settings = sweep.config.ray
    device, threads = resolve_device(settings), max(1, int(settings.num_cpus))
    return Work(
        sweep.spec, sweep.config.measures, sweep.queries, device, threads, training_plan(sweep, device, threads)
    )
