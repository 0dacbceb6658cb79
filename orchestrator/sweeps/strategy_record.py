"""How a sweep's packs are trained, as its folder keeps it, with the reason."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from orchestrator.store.side_files import read_json
from orchestrator.sweeps.sweep import Sweep
from workers.packed.strategy import Strategy


def read_strategy(sweep: Sweep) -> Strategy | None:
    """Return the strategy that the sweep keeps, if any. Raises StoreError where the file is damaged."""
    remedy = "delete it, and the way to train is chosen anew, by measurement"
    return read_json(sweep.paths.calibration, remedy, _parsed)


def _parsed(plain: Any) -> Strategy:
    """Return the strategy that a file describes. Raises ValueError, TypeError or KeyError where it describes none."""
    return TypeAdapter(Strategy).validate_python(asdict(Strategy.from_json(plain)))
