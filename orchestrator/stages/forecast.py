"""Before a sweep begins: how large its packs are, and what it will take."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.forecast.cost import Forecast, forecast, pack_by_time, read_forecast, why_pack
from orchestrator.forecast.trial_runs import try_runs
from orchestrator.stages.plan import preview
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
        kept = Sweep.at(sweep.paths.root, edited=True).config.pack
        if sweep.config.pack == "auto" and kept != "auto":
            sweep, known = sweep.with_pack(kept), read_forecast(sweep)
            if known is not None or not always:
                return sweep, known
    planned = preview(sweep)
    if sweep.config.pack != "auto" and not always and sum(one.runs for one in planned) < MANY_RUNS:
        return sweep, None
    trial = try_runs(sweep, sweep.plans)
    on_disk = sum(one.bytes for one in planned)
    if sweep.config.pack != "auto":
        return sweep, forecast(sweep, sweep.plans, trial, on_disk)
    pack = pack_by_time(trial, sweep.plans)
    settled = sweep.with_pack(pack)
    expected = forecast(settled, settled.plans, trial, on_disk)
    return settled, replace(expected, pack=why_pack(pack, settled.plans, trial))
