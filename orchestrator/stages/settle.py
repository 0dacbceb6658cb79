"""Before a sweep begins: how large its packs are, and what it will take."""

from __future__ import annotations

import json

from orchestrator.forecast import Forecast, calibrate, forecast, pack_by_time
from orchestrator.stages.plan import preview
from orchestrator.store.durable import write_atomically
from orchestrator.sweeps.sweep import Sweep

MANY_RUNS = 2000
"""From here on a sweep is forecast even if the size of its packs is given."""
LARGE_SECONDS = 3600.0
"""A sweep forecast to take longer asks first."""


def settle(sweep: Sweep, always: bool = False) -> tuple[Sweep, Forecast | None]:
    """Return the sweep with packs of a definite size, and a forecast where runs were trained for one.

    A folder that holds runs already decides: its packs are what they are. Otherwise `pack: auto` trains a few runs here.
    Raises whatever makes the configuration impossible, before anything is trained.
    """
    if sweep.paths.config.is_file():
        kept = Sweep.at(sweep.paths.root).config.pack
        if sweep.config.pack == "auto" and kept != "auto":
            return sweep.with_pack(kept), read_forecast(sweep)
    planned = preview(sweep)
    if sweep.config.pack != "auto" and not always and sum(one.runs for one in planned) < MANY_RUNS:
        return sweep, None
    calibration = calibrate(sweep, sweep.plans)
    settled = sweep if sweep.config.pack != "auto" else sweep.with_pack(pack_by_time(calibration, sweep.plans))
    return settled, forecast(settled, settled.plans, calibration, sum(one.bytes for one in planned))


def keep_forecast(sweep: Sweep, made: Forecast) -> None:
    """Keep a forecast in the sweep's folder, for the report to compare with what happened."""
    write_atomically(sweep.paths.forecast, json.dumps(made.plain(), indent=1).encode())


def read_forecast(sweep: Sweep) -> Forecast | None:
    """Return the forecast that the folder keeps, if any."""
    if not sweep.paths.forecast.is_file():
        return None
    return Forecast.of(json.loads(sweep.paths.forecast.read_text(encoding="utf-8")))
