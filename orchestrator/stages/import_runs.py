"""In place of plan and retrain: runs made elsewhere become a sweep, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.config.loading import parsed, validate_with
from orchestrator.imports.survey import (
    Part,
    Request,
    Surveyed,
    held_out_fraction,
    read_source,
    refuse_unusable,
    rows_at_once,
    split_off,
    survey,
    survey_others,
    survey_scoring,
)
from orchestrator.store.durable import folder_at_once, temporary_of, write_atomically
from orchestrator.store.lease import holder
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.provenance import versions
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.task_record import keep_record
from workers.errors import ConfigError, StoreError
from workers.runs import Failure, Outcome

FREE = ("estimators", "scores", "ray", "name")
"""Sections of the configuration that a user may set: the others say what was imported."""
NOT_FINITE = Failure("NotFinite", "the imported outputs of this run are not all finite", "")


@dataclass(frozen=True)
class ImportSummary:
    """What became of one design."""

    design: str
    purpose: str
    """fit or score."""
    source: str
    """The format and the place that its runs come from."""
    subsets: int
    runs: int
    not_finite: int
    """Runs among them that have no outputs, because some were not finite."""
    left_out: str
    """Rows of the source that are not among the runs, and why."""
    done: str
    """What was done to what the source holds: its orientation, its sign."""


def import_runs(request: Request, out: Path) -> list[ImportSummary]:
    """Write the runs of a request into the new sweep folder `out`; return what it holds.

    Raises DataError, ConfigError or StoreError, one line with the counts, and leaves no folder behind.
    """
    overrides = _overrides(request)
    _refuse_used(out)
    fit = survey(read_source(request, request.fit, request.outputs))
    parts = _parts(request, fit)
    for part in parts:
        if part.name == part.purpose:
            refuse_unusable(part)
    _write(_sweep(request, overrides, out, parts), parts)
    return [_summary(part) for part in parts]


def _parts(request: Request, fit: Surveyed) -> list[Part]:
    """Return the runs of each design, where there are any: given apart, or split off those to fit on; and what is beside them."""
    sources = [fit]
    if request.score is None:
        fitting, scoring = split_off(fit, held_out_fraction(request), request.seed)
        chosen = [("fit", fit, fitting), ("score", fit, scoring)]
    else:
        sources.append(survey_scoring(request, fit))
        chosen = [(name, one, np.arange(len(one.runs))) for name, one in zip(("fit", "score"), sources, strict=True)]
    pack = rows_at_once(fit.runs)
    parts = [Part(purpose, purpose, surveyed, rows, pack) for purpose, surveyed, rows in chosen if len(rows)]
    others = survey_others(*sources)
    return parts + [Part(what, "fit", one, np.arange(len(one.runs)), pack) for what, one in others.items()]


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out}: exists already; choose another --out, or delete it")


def _overrides(request: Request) -> list[tuple[str, Any]]:
    """Return the dotted keys that are to be set, and their values. Raises ConfigError for what is none, or is not to be set."""
    overrides = [parsed(override) for override in request.overrides]
    for key, _ in overrides:
        if key.partition(".")[0] not in FREE:
            raise ConfigError(f"override {key!r}: of an imported sweep only {', '.join(FREE)} can be set")
    return overrides


def _sweep(request: Request, overrides: Sequence[tuple[str, Any]], out: Path, parts: Sequence[Part]) -> Sweep:
    """Return the sweep that these runs make. Raises ConfigError for overrides whose values will not do."""
    runs = parts[0].surveyed.runs
    raw: dict[str, Any] = {
        "name": out.resolve().name,
        "seed": request.seed,
        "task": {"name": "imported", "arguments": {"n": runs.n, "t": runs.t}},
        "measures": [request.measure or runs.measure],
        "designs": {
            part.name: {
                "kind": "imported" if part.name == part.purpose else f"imported_{part.name}",
                "purpose": part.purpose,
                "runs": len(part.chosen),
                "source": part.source,
            }
            for part in parts
        },
        "pack": parts[0].pack,
        "estimators": {"datamodel": {}, "difference_in_means": {}},
        "folder": ".",
    }
    return Sweep.of(validate_with(raw, overrides, Path(), "import"), out)


def _write(sweep: Sweep, parts: Sequence[Part]) -> None:
    """Write the whole sweep beside its place, then move it there."""
    final = sweep.paths.root
    if holder(SweepPaths(temporary_of(final))):
        raise StoreError(f"{final}: another import is writing it")
    with folder_at_once(final) as temporary:
        paths = SweepPaths(temporary)
        write_atomically(paths.config, sweep.resolved_yaml().encode(), private=True)
        _fill(sweep, paths, parts)
        keep_record(replace(sweep, paths=paths))
        if final.exists():
            final.rmdir()  # refused, unless it is empty


def _fill(sweep: Sweep, paths: SweepPaths, parts: Sequence[Part]) -> None:
    runs = parts[0].surveyed.runs
    sources = {
        key: text
        for part in parts
        for key, text in (
            (f"{part.name}_source", part.source),
            (f"{part.name}_left_out", part.surveyed.runs.left_out),
            (f"{part.name}_done", part.surveyed.runs.done),
            (f"{part.name}_seeds", "unknown, kept as 0" if part.surveyed.runs.seeds is None else "the source's"),
        )
    }
    with RunStore.create(
        paths,
        config_hash=sweep.config.identity(),
        n=runs.n,
        t=runs.t,
        measures=sweep.config.measures,
        designs=[_layout(part) for part in parts],
        attributes={**versions(), **sources},
    ) as store:
        for part in parts:
            _fill_design(store, part, sweep.config.measures[0])


def _layout(part: Part) -> DesignLayout:
    """Return what the store is told: to whoever reads it, any subsets are ones that somebody brought."""
    kind = "explicit" if part.name == part.purpose else part.name
    return DesignLayout(part.name, kind, part.purpose, len(part.chosen), part.pack)


def _fill_design(store: RunStore, part: Part, measure: str) -> None:
    """Write the plan of all runs, then the outputs of those that have them."""
    (subsets, repeats), seeds = part.numbers(), part.seeds()
    for start, chosen in part.packs():
        rows = slice(start, start + len(chosen))
        masks, _ = part.surveyed.runs.block(chosen)
        store.write_plan(part.name, start, masks, seeds[rows], subsets[rows], repeats[rows])
    for start, chosen in part.packs():
        _, outputs = part.surveyed.runs.block(chosen)
        outcomes = [
            Outcome(start + k, {measure: outputs[k]})
            if part.surveyed.finite[run]
            else Outcome(start + k, failure=NOT_FINITE)
            for k, run in enumerate(chosen)
        ]
        store.commit(part.name, start // part.pack, outcomes, worker="import", started=0, seconds=0)


def _summary(part: Part) -> ImportSummary:
    return ImportSummary(
        part.name,
        part.purpose,
        part.source,
        len({part.surveyed.keys[run] for run in part.chosen}),
        len(part.chosen),
        int((~part.surveyed.finite[part.chosen]).sum()),
        part.surveyed.runs.left_out,
        part.surveyed.runs.done,
    )
