"""A sweep's folder, opened to be looked at: arrays and tables, and nothing of the sweep is run."""

from __future__ import annotations

import json
import operator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.api.score_table import ScoreTable
from orchestrator.report.page.notebook import sweep_html
from orchestrator.retraining.counts import finished
from orchestrator.scoring.ends import ends_of
from orchestrator.scoring.stale import stale_scores
from orchestrator.scoring.suspects import SHOWN, suspects
from orchestrator.scoring.table import read_scores
from orchestrator.stages.status import Status, status
from orchestrator.store.attributions import list_attributions, read_attribution
from orchestrator.store.query_attributions import list_query_attributions, read_query_attribution
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.task_record import read_record
from workers.errors import ConfigError, StoreError, near

if TYPE_CHECKING:
    import xarray as xr


def open_sweep(folder: str | PathLike[str]) -> OpenedSweep:
    """Open the sweep in `folder` for looking, also while another process is running it.

    Reads what is there each time that something is asked for; writes nothing, takes no lease, and runs no code that the sweep
    names. Raises StoreError, one line, for a folder that holds no sweep, or one that is damaged or of a newer format.
    """
    sweep = Sweep.at(Path(folder))
    RunStore.open(sweep.paths).close()  # says now, not later, what is wrong with the runs
    return OpenedSweep(sweep)


@dataclass(frozen=True, repr=False, eq=False)
class OpenedSweep:
    """What `open_sweep` and `run` return. Jupyter shows it as its leaderboard and how its designs stand."""

    _sweep: Sweep

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._sweep.paths.root

    @property
    def name(self) -> str:
        """Its name."""
        return self._sweep.config.name

    @property
    def measures(self) -> tuple[str, ...]:
        """What is recorded of every model on every query; the first one is attributed by default."""
        return self._sweep.config.measures

    @property
    def designs(self) -> tuple[str, ...]:
        """The names of its designs."""
        return tuple(self._sweep.config.designs)

    @property
    def attributions(self) -> tuple[str, ...]:
        """The names of the attributions that are there."""
        return tuple(list_attributions(self._sweep.paths))

    def runs(self, design: str) -> xr.Dataset:
        """Return the finished runs of a design, read when they are looked at.

        Dimensions `run` (its row in the store), `example` (n) and `query` (t, its position among the task's queries or training
        examples); variables `masks` (run, example) bool, `seeds`, `subsets` and `repeats` (run,), and each measure (run, query)
        float32. Raises StoreError, with near names, for an unknown design.
        """
        from orchestrator.api.lazy_arrays import runs_dataset

        with RunStore.open(self._sweep.paths) as store:
            if design not in store.designs:
                raise StoreError(f"{self.folder} has no design {design!r}: {near(design, list(store.designs))}")
            found = runs_dataset(store, design, np.arange(store.n), self._queries(store))
        found.attrs["queries"] = self._sweep.queries.source
        return found

    def attribution(self, estimator: str) -> xr.DataArray:
        """Return the attribution that an estimator gave: dimensions example (n) and query (t).

        `tau[i, q]` is the effect of including example i on the measured output of query q. Attributes: its measure and where it
        comes from (estimator, options, designs fitted on, models, seconds); coordinates `standard_error` (example, query) and
        `bias` (query,) where the estimator gave them. Raises StoreError, with near names, for an unknown one.
        """
        import xarray as xr

        kept = read_attribution(self._sweep.paths, estimator)
        attributes = kept.attributes
        with RunStore.open(self._sweep.paths) as store:
            coordinates: dict[str, Any] = {"example": np.arange(store.n), "query": self._queries(store)}
        if kept.bias is not None:
            coordinates["bias"] = ("query", kept.bias)
        if kept.standard_error is not None:
            coordinates["standard_error"] = (("example", "query"), kept.standard_error)
        provenance = {
            "measure": attributes.measure,
            "estimator": attributes.estimator,
            "options": json.dumps(attributes.options),
            "fitted_on": list(attributes.fitted_on),
            "models": attributes.models,
            "seconds": attributes.seconds,
            "train_seconds": attributes.train_seconds,
            "queries": self._sweep.queries.source,
            "sweep": str(self.folder),
        }
        return xr.DataArray(kept.values, coordinates, ("example", "query"), name=estimator, attrs=provenance)

    def scores(self) -> ScoreTable:
        """Return the scores, a row an (estimator, metric); empty when nothing was scored yet.

        `attrs["stale"]` says of which attributions they are not the scores any more, and why: they changed, or are gone.
        """
        found = ScoreTable(read_scores(self._sweep.paths.scores))
        found.attrs["stale"] = stale_scores(self._sweep)
        return found

    def top(self, query: int, estimator: str, k: int = 10) -> pd.DataFrame:
        """Return the `k` most helpful and the `k` most harmful training examples of a query (0 <= query < t).

        Columns: `effect` (helpful or harmful; raises or lowers for a measure of which it is not known whether high is good),
        `example`, `label` (None where the task names none), `value` and, where the estimator gives one, `standard_error`. The
        strongest come first; examples without effect are left out. Raises ConfigError for a query that is out of range, and for a
        negative `k`.
        """
        kept = read_attribution(self._sweep.paths, estimator)
        tau, error, measure = kept.values, kept.standard_error, kept.attributes.measure
        t = tau.shape[1]
        query, k = _whole("query", query), _whole("k", k)
        if not 0 <= query < t:
            raise ConfigError(f"query {query} is out of range: {self.folder} has queries 0 to {t - 1}")
        if k < 0:
            raise ConfigError(f"k {k}: expected how many examples of each kind to return, at least 0")
        values = tau[:, query].astype(np.float64)
        names, sign = ends_of(self._sweep.config, measure)
        labels = read_record(self._sweep).examples.labels
        parts = []
        for name, oriented in zip(names, (sign * values, -sign * values), strict=True):
            order = np.argsort(-oriented, kind="stable")[:k]
            order = order[oriented[order] > 0]
            part: dict[str, Any] = {
                "effect": name,
                "example": order,
                "label": [labels.get(("train", int(example))) for example in order],
                "value": values[order],
            }
            if error is not None:
                part["standard_error"] = error[order, query]
            parts.append(pd.DataFrame(part))
        found = pd.concat(parts, ignore_index=True)
        source, position = self._sweep.queries.source, int(self._sweep.queries.take(t)[query])
        found.attrs = {
            "query": query,
            "query_label": labels.get((source, position)),
            "estimator": estimator,
            "measure": measure,
        }
        return found

    def suspects(self, k: int = SHOWN, estimator: str | None = None) -> pd.DataFrame:
        """Return the `k` training examples that look most like mislabelled ones, the most suspicious first.

        Columns: `example`, `label` (the one it has; None where the task names none), `suspicion` (docs/values.md says what that
        is), and where the task mislabelled some on purpose `mislabelled`. By default those of the attribution that finds these
        best; `attrs` say which one, and its measure. Raises ConfigError where nothing says which is the best, for a measure of
        which nobody said what is good, and for a negative `k`; StoreError, with near names, for an unknown estimator.
        """
        k = _whole("k", k)
        if k < 0:
            raise ConfigError(f"k {k}: expected how many examples to return, at least 0")
        found = suspects(self._sweep, k, estimator)
        columns: dict[str, Any] = {
            "example": found.examples,
            "label": list(found.labels),
            "suspicion": found.suspicion,
        }
        if found.mislabelled is not None:
            columns["mislabelled"] = found.mislabelled
        table = pd.DataFrame(columns)
        table.attrs = {"estimator": found.estimator, "measure": found.measure, "verdict": found.verdict}
        return table

    def attribute_queries(
        self,
        file: str | PathLike[str],
        estimator: str | None = None,
        *,
        measure: str | None = None,
        k: int = 10,
        name: str | None = None,
        accept_changes: bool = False,
    ) -> pd.DataFrame:
        """Attribute the queries in a file, from the gradients that an estimator keeps; return the strongest examples of each.

        What `counterfactory attribute DIR --queries FILE` does: it runs the task's code, takes the lease, and writes the
        attribution, which `query_attribution` returns. `estimator` is by default the only one with `store: true`, `name` the
        file's. Columns: those of `top`, `query` first, and `text` where the task shows texts; `attrs` name the queries, the
        estimator and the measure. Raises UserError, one line, for a file that cannot be read, and for gradients that are not
        kept or damaged.
        """
        from orchestrator.cli.session import before_new_queries
        from orchestrator.stages.new_queries import attribute_new_queries

        sweep = self._sweep.with_options()
        check = before_new_queries(sweep, accept_changes=accept_changes)
        with RunStore.open(sweep.paths, write=True) as store:
            done = attribute_new_queries(
                sweep,
                store,
                Path(file),
                estimator=estimator,
                measure=measure,
                top=_whole("k", k),
                name=name,
                before_task=check,
            )
        found = done.top
        found.attrs = {"queries": done.queries, "estimator": done.estimator, "measure": done.measure}
        return found

    @property
    def query_attributions(self) -> tuple[tuple[str, str], ...]:
        """The attributions of queries that came later: what the queries are called, and the estimator."""
        return tuple(list_query_attributions(self._sweep.paths))

    def query_attribution(self, queries: str, estimator: str) -> xr.DataArray:
        """Return the attribution of queries that came later: dimensions example (n) and query (q, their places in the file).

        Raises StoreError, with near names, for unknown ones.
        """
        import xarray as xr

        kept = read_query_attribution(self._sweep.paths, queries, estimator)
        n, q = kept.values.shape
        attributes = {
            "measure": kept.attributes.measure,
            "estimator": kept.attributes.estimator,
            "options": json.dumps(kept.attributes.options),
            "models": kept.attributes.models,
            "sweep": str(self.folder),
            **kept.attributes.details.get("queries", {}),
        }
        coordinates = {"example": np.arange(n), "query": np.arange(q)}
        return xr.DataArray(kept.values, coordinates, ("example", "query"), name=estimator, attrs=attributes)

    def failures(self) -> pd.DataFrame:
        """Return the failed runs: columns design, row, kind (class of the exception), message, traceback."""
        with RunStore.open(self._sweep.paths) as store:
            found = [
                {"design": name, "row": one.row, "kind": one.kind, "message": one.message, "traceback": one.traceback}
                for name in store.designs
                for one in store.failures(name)
            ]
        return pd.DataFrame(found, columns=["design", "row", "kind", "message", "traceback"])

    def status(self) -> Status:
        """Return how the sweep stands: runs done, failed and pending by design; who is running it, how fast."""
        with RunStore.open(self._sweep.paths) as store:
            return status(self._sweep, store)

    def _queries(self, store: RunStore) -> NDArray[np.int64]:
        """Return which positions of their source the queries are, (t,)."""
        return self._sweep.queries.take(store.t)

    def __repr__(self) -> str:
        try:
            with RunStore.open(self._sweep.paths) as store:
                counts = finished(self._sweep, store)
        except StoreError as error:  # looking at an object raises nothing: not where its folder is gone, or damaged
            return f"<sweep {self.name!r}: {error}>"
        done, failed, pending = (sum(count[state] for count in counts.values()) for state in range(3))
        stand = ", ".join(f"{count:,} {word}" for count, word in ((failed, "failed"), (pending, "to do")) if count)
        return f"<sweep {self.name!r} in {self.folder}: {done:,} runs done{', ' + stand if stand else ''}>"

    def _repr_html_(self) -> str:
        with RunStore.open(self._sweep.paths) as store:
            rows = [
                (name, store.designs[name].kind, store.designs[name].purpose, *counts)
                for name, counts in finished(self._sweep, store).items()
            ]
        return sweep_html(self.name, str(self.folder), rows, self.scores())


def _whole(name: str, value: Any) -> int:
    """Return an argument that is a whole number, NumPy's own among them. Raises ConfigError for any other."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise ConfigError(f"{name} {value!r}: expected a whole number") from error
