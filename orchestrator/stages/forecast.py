"""Before a sweep begins: how large its packs are, and what it will take."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.config.schema import Config
from orchestrator.forecast.attribution_time import attribution_times
from orchestrator.forecast.cost import Forecast, forecast, pack_by_time, why_pack
from orchestrator.forecast.disk import kept_bound
from orchestrator.forecast.trial_runs import try_runs
from orchestrator.stages.plan import preview
from orchestrator.stages.rehearsal import stage_times
from orchestrator.sweeps.identity import refuse_other
from orchestrator.sweeps.sweep import Sweep
from workers.errors import CounterfactoryError

MANY_RUNS = 2000
"""From here on a sweep is forecast even if the size of its packs is given."""
LARGE_SECONDS = 3600.0
"""A sweep forecast to take longer asks first."""


class TrialRunsFailedError(CounterfactoryError):
    """No trial run succeeded: nothing can be told of the sweep but that it would fail."""


def refuse_another(sweep: Sweep) -> None:
    """Refuse a folder that holds another sweep, before any code of the task is run."""
    refuse_other(_as_kept(sweep), edited=True)


def _kept(sweep: Sweep) -> Config | None:
    return Sweep.at(sweep.paths.root, edited=True).config if sweep.paths.config.is_file() else None


def _as_kept(sweep: Sweep) -> Sweep:
    """Return the sweep with packs of the size that its folder has, where it leaves that open."""
    kept = _kept(sweep)
    if kept is None or kept.pack == "auto" or sweep.config.pack != "auto":
        return sweep
    return sweep.with_pack(kept.pack)


def settle(sweep: Sweep, always: bool = False) -> tuple[Sweep, Forecast | None]:
    """Return the sweep with packs of a definite size, and a forecast where runs were trained for one.

    A folder that holds this sweep already decides: its packs are what they are, and nothing is forecast. Otherwise `pack: auto`
    trains a few runs here. With `always` there is a forecast of the configuration that is given, whatever the folder holds, and
    estimators, scores and the report are timed too; TrialRunsFailedError where not one run succeeds.
    Raises whatever makes the configuration impossible, before anything is trained; StoreError for a folder of another sweep.
    """
    if not always:
        refuse_another(sweep)
    kept = _kept(sweep)
    if kept is not None and kept.identity() == sweep.config.identity():
        sweep = _as_kept(sweep)
        if not always:
            return sweep, None
    planned = preview(sweep)
    if sweep.config.pack != "auto" and not always and sum(one.runs for one in planned) < MANY_RUNS:
        return sweep, None
    trial = try_runs(sweep, sweep.plans)
    if always and trial.tried and trial.failed == trial.tried:
        raise TrialRunsFailedError(f"all of the {trial.tried} trial runs failed, the first with {trial.failure}")
    on_disk = sum(one.bytes for one in planned) + kept_bound(sweep)
    why = ""
    if sweep.config.pack == "auto":
        sweep = sweep.with_pack(pack := pack_by_time(trial, sweep.plans))
        why = why_pack(pack, sweep.plans, trial)
    expected = replace(forecast(sweep, sweep.plans, trial, on_disk), pack=why)
    if not always:
        return sweep, expected
    attributions = attribution_times(sweep, sweep.plans)
    return sweep, replace(expected, attributions=attributions, stages=stage_times(sweep, sweep.plans))
