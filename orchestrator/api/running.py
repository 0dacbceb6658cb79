"""Run a sweep, forecast one, judge an array: what the commands of the same names do, for scripts and notebooks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
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


def sensitivity(
    folder: str | PathLike[str],
    estimator: str,
    option: str,
    values: Sequence[float] | None = None,
    *,
    measure: str | None = None,
    accept_changes: bool = False,
) -> pd.DataFrame:
    """Show how the LDS goes with an option, as `counterfactory sensitivity` does; return the table, a row a value.

    `estimator` is one of the sweep's, or any other with its defaults; `values` are numbers, by default a range around the
    option's default. Columns: those of `orchestrator.report.sensitivity_table.Looked`; `attrs` say where the files are.
    It looks at the runs that judge, so no value may be chosen by it for a leaderboard. Raises ConfigError for an unknown
    estimator or option, one that is not numeric, and values that it does not take.
    """
    from orchestrator.cli.session import announce_estimators, look_watched
    from orchestrator.stages.sensitivity import Request

    sweep = Sweep.at(Path(folder), edited=accept_changes)
    announce_estimators(sweep)
    sweep = sweep.with_options()
    request = Request(estimator, option, None if values is None else [_plain(value) for value in values], measure)
    with RunStore.open(sweep.paths, write=True) as store:
        found = look_watched(sweep, store, request, accept_changes=accept_changes)
    found.table.attrs = {"csv": str(found.csv), "svg": str(found.svg)}
    return found.table


def _plain(value: Any) -> Any:
    """Return a number as Python has it, not NumPy."""
    return value.item() if isinstance(value, np.generic) else value


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
