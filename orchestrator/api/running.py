"""Run a sweep, forecast one, judge an array: what the commands of the same names do, for scripts and notebooks."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from html import escape
from os import PathLike
from pathlib import Path

import pandas as pd
from numpy.typing import ArrayLike

from orchestrator.api.opened_sweep import OpenedSweep, open_sweep
from orchestrator.api.score_table import ScoreTable
from orchestrator.forecast.cost import Forecast
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.request import Configuration, Overrides, requested
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.task_record import read_record


def run(
    config: Configuration,
    *,
    out: str | PathLike[str] | None = None,
    overrides: Overrides = (),
    sample: float | None = None,
    retry_failed: bool = False,
    accept_changes: bool = False,
) -> OpenedSweep:
    """Do everything that `counterfactory run` does, with the same progress; return the opened sweep.

    `config` is a YAML file, the name of a shipped configuration, the sections as plain data, or a `Config`; `overrides` are
    dotted keys and their values, or `key.sub=value` as on the command line. `out` is the sweep's folder, by default runs/<name>;
    one that holds a part of this sweep goes on from there. `sample` trains only that fraction of every design's runs, for a quick
    look. A sweep goes on only under the data, source and versions that its runs were trained under, unless `accept_changes`.
    Raises ConfigError, TaskError or StoreError for what cannot be run, before anything is trained; KeyboardInterrupt after
    an interruption, with everything finished kept. Failed runs are no exception, `failures()` of what is returned has them; only
    where every run fails is there nothing to go on with, and EveryRunFailedError is raised.
    """
    from orchestrator.cli.session import run_sweep

    sweep = requested(config, None if out is None else Path(out), overrides, sample)
    run_sweep(sweep, retry_failed=retry_failed, accept_changes=accept_changes)
    return open_sweep(sweep.paths.root)


@dataclass(frozen=True)
class PlannedSweep:
    """What a sweep would train, and what that would take."""

    designs: pd.DataFrame
    """A row a design: kind, purpose, subsets, seeds, runs, packs, bytes on disk at most."""
    forecast: Forecast
    """Time with its 95% interval, the standard error to expect of a value, and the disk it needs."""

    def _repr_html_(self) -> str:
        from orchestrator.cli.tables import forecast_line

        table: str = self.designs.to_html(index=False, border=0)
        return f"{table}<p>{escape(forecast_line(self.forecast))}</p>"


def plan(
    config: Configuration,
    *,
    out: str | PathLike[str] | None = None,
    overrides: Overrides = (),
    sample: float | None = None,
) -> PlannedSweep:
    """Check a configuration, train a few runs to see how long they take, and say what the sweep would cost; writes nothing."""
    from orchestrator.stages.forecast import settle
    from orchestrator.stages.plan import preview

    settled, forecast = settle(requested(config, None if out is None else Path(out), overrides, sample), always=True)
    assert forecast is not None, "asked for always"
    return PlannedSweep(pd.DataFrame([asdict(one) for one in preview(settled)]), forecast)


def score(
    folder: str | PathLike[str], tau: ArrayLike | str | PathLike[str], *, measure: str | None = None, name: str = ""
) -> ScoreTable:
    """Judge anybody's attribution `tau` (n, t), an array or a .npy file, by a sweep's held-out runs; stores nothing.

    `tau[i, q]` is the effect of including example i on `measure` of query q, by default the sweep's first measure; `name` is
    what the table calls it (by default the file's name). What it was fitted on, only its maker knows: it must not be the runs
    that it is scored on. Raises DataError for an array that cannot be judged, ConfigError for a measure that is not recorded.
    """
    from orchestrator.scoring.absent_metrics import unloadable_metrics
    from orchestrator.stages.score import judge

    sweep = Sweep.at(Path(folder))
    if missing := read_record(sweep).missing:
        warnings.warn(missing, stacklevel=2)
    for key, why in unloadable_metrics().items():
        warnings.warn(f"{key}: {why}", stacklevel=2)
    with RunStore.open(sweep.paths) as store:
        return ScoreTable(judge(sweep, store, tau, measure, name))
