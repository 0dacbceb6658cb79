"""In place of plan and retrain: runs made elsewhere become a sweep, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.config.loading import apply_override, validate
from orchestrator.imports import ForeignRuns, read
from orchestrator.store.durable import PARTIAL, refusing, sync, write_atomically
from orchestrator.store.lease import holder
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.provenance import provenance
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, DataError, StoreError
from workers.runs import Failure, Outcome

FREE = ("estimators", "scores", "ray", "name")
"""Sections of the configuration that a user may set: the others say what was imported."""
HOLDOUT = 0.1
BLOCK_BYTES = 8 * 2**20
"""What a pack may take in the store, about."""
MOST_ROWS = 4096
FEWEST_FITTING, FEWEST_SCORING = 4, 2
"""Subsets that a datamodel and the LDS need at least."""
NOT_FINITE = Failure("NotFinite", "the imported outputs of this run are not all finite", "")


@dataclass(frozen=True)
class Request:
    """What is to be imported."""

    fit: Path
    outputs: str | None = None
    score: Path | None = None
    score_outputs: str | None = None
    measure: str = "margin"
    n: int | None = None
    holdout: float | None = None
    """Fraction of the subsets that are kept for scoring, without `score`; None takes a tenth."""
    seed: int = 0
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """What became of one design."""

    design: str
    purpose: str
    source: str
    subsets: int
    runs: int
    not_finite: int
    """Runs among them that have no outputs, because some were not finite."""
    left_out: str
    """Rows of the source that are not among the runs, and why."""


@dataclass(frozen=True)
class _Surveyed:
    """Runs, looked at once: what their subsets are and whether their outputs are finite."""

    runs: ForeignRuns
    keys: list[bytes]
    """(m,) a hash of each run's mask."""
    finite: NDArray[np.bool_]
    """(m,)"""


@dataclass(frozen=True)
class _Part:
    """Some runs of a source on their way to be a design."""

    name: str
    purpose: str
    surveyed: _Surveyed
    chosen: NDArray[np.int64]
    """(m,) which runs."""
    pack: int

    def numbers(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return subset and repeat of each run, (m,) each: runs with equal masks are repeats of one subset."""
        seen: dict[bytes, list[int]] = {}
        subsets, repeats = np.empty(len(self.chosen), np.int64), np.empty(len(self.chosen), np.int32)
        for row, run in enumerate(self.chosen):
            number, count = seen.setdefault(self.surveyed.keys[run], [len(seen), 0])
            subsets[row], repeats[row] = number, count
            seen[self.surveyed.keys[run]][1] += 1
        return subsets, repeats

    def packs(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield first row and runs of every pack."""
        for start in range(0, len(self.chosen), self.pack):
            yield start, self.chosen[start : start + self.pack]


def import_runs(request: Request, out: Path) -> list[Imported]:
    """Write the runs of a request into the new sweep folder `out`; return what it holds.

    Raises DataError, ConfigError or StoreError, one line with the counts, and leaves no folder behind.
    """
    _refuse_used(out)
    fit = _survey(read(request.fit, request.outputs, request.n), "fit")
    if request.score is None:
        fitting, scoring = _held_out(fit, _fraction(request), request.seed)
        chosen = [("fit", fit, fitting), ("score", fit, scoring)]
    else:
        score = _scored(request, fit)
        chosen = [("fit", fit, np.arange(len(fit.runs))), ("score", score, np.arange(len(score.runs)))]
    pack = _pack(fit.runs)
    parts = [_Part(name, name, surveyed, rows, pack) for name, surveyed, rows in chosen if len(rows)]
    for part in parts:
        _refuse_unusable(part)
    _write(_sweep(request, out, parts), parts)
    return [_summary(part) for part in parts]


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out}: exists already; choose another --out, or delete it")


def _fraction(request: Request) -> float:
    fraction = HOLDOUT if request.holdout is None else request.holdout
    if not 0 <= fraction < 1:
        raise ConfigError(f"--holdout {fraction:g}: expected a fraction, at least 0 and below 1")
    return fraction


def _survey(runs: ForeignRuns, purpose: str) -> _Surveyed:
    """Read everything once. Raises DataError for masks that are not 0/1, and for empty subsets."""
    keys: list[bytes] = []
    finite, empty = np.empty(len(runs), bool), []
    step = _pack(runs)
    for start in range(0, len(runs), step):
        block = np.arange(start, min(start + step, len(runs)))
        masks, outputs = runs.block(block)
        keys += [hashlib.blake2b(row, digest_size=16).digest() for row in np.packbits(masks, axis=1)]
        finite[block] = np.isfinite(outputs).all(axis=1)
        empty += (start + np.flatnonzero(~masks.any(axis=1))).tolist()
    if empty:
        raise DataError(
            f"{runs.where}: {len(empty)} of its {len(runs)} runs have an empty subset, such as run {empty[0]}: rows that were "
            "never written look so; leave them out of the file, or say so in _completed.npy"
        )
    return _Surveyed(runs, keys, finite)


def _scored(request: Request, fit: _Surveyed) -> _Surveyed:
    """Read the scoring runs. Raises DataError unless they are of the same examples and queries, and of other subsets."""
    assert request.score is not None
    if request.holdout is not None:
        raise ConfigError("--holdout goes without --score: the scoring runs are either given or split off")
    score = _survey(read(request.score, request.score_outputs or request.outputs, request.n), "score")
    if score.runs.outputs_file.resolve() == fit.runs.outputs_file.resolve():
        raise ConfigError(
            f"{fit.runs.outputs_file} would be the outputs of the fitting and of the scoring runs: name the latter's with "
            "--score-outputs"
        )
    sizes = (fit.runs.n, fit.runs.t), (score.runs.n, score.runs.t)
    if sizes[0] != sizes[1]:
        raise DataError(
            f"{request.fit} has {sizes[0][0]} examples and {sizes[0][1]} queries, {request.score} has {sizes[1][0]} and "
            f"{sizes[1][1]}: fitting and scoring runs must be of the same ones"
        )
    first = {key: run for run, key in reversed(list(enumerate(fit.keys)))}
    shared = [run for run, key in enumerate(score.keys) if key in first]
    if shared:
        raise DataError(
            f"{len({score.keys[run] for run in shared})} of the {len(set(score.keys))} scoring subsets are also among the "
            f"{len(set(fit.keys))} fitting ones (scoring run {shared[0]} is fitting run {first[score.keys[shared[0]]]}): a "
            "method must not be scored on subsets it was fitted on"
        )
    return score


def _held_out(surveyed: _Surveyed, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split whole subsets, drawn by the seed; return the fitting runs and the scoring runs, in their order."""
    distinct = list(dict.fromkeys(surveyed.keys))
    count = max(FEWEST_SCORING, round(fraction * len(distinct))) if fraction else 0
    drawn = np.random.default_rng(seed).permutation(len(distinct))[:count]
    held = {distinct[k] for k in drawn}
    scoring = np.array([key in held for key in surveyed.keys])
    return np.flatnonzero(~scoring), np.flatnonzero(scoring)


def _refuse_unusable(part: _Part) -> None:
    """Raise DataError when too few subsets have finite outputs for anything to be made of them."""
    runs = part.surveyed.runs
    usable = part.chosen[part.surveyed.finite[part.chosen]]
    subsets, fewest = len({part.surveyed.keys[run] for run in usable}), FEWEST_FITTING
    if part.purpose == "score":
        fewest = FEWEST_SCORING
    if subsets < fewest:
        bad = len(part.chosen) - len(usable)
        raise DataError(
            f"{runs.where}: has {subsets} subsets with finite outputs to {part.purpose} on, expected at least {fewest} "
            f"({bad} of {len(part.chosen)} runs have outputs that are not finite)"
        )


def _pack(runs: ForeignRuns) -> int:
    """Return the rows that are read and stored at a time."""
    return int(np.clip(BLOCK_BYTES // max(runs.n // 8 + 1, 4 * runs.t), 1, min(MOST_ROWS, max(1, len(runs)))))


def _sweep(request: Request, out: Path, parts: Sequence[_Part]) -> Sweep:
    """Return the sweep that these runs make. Raises ConfigError for overrides that are none."""
    runs = parts[0].surveyed.runs
    raw: dict[str, Any] = {
        "name": out.resolve().name,
        "seed": request.seed,
        "task": {"name": "imported", "arguments": {"n": runs.n, "t": runs.t}},
        "measures": [request.measure],
        "designs": {
            part.name: {
                "kind": "imported",
                "purpose": part.purpose,
                "runs": len(part.chosen),
                "source": f"{part.surveyed.runs.format}, {part.surveyed.runs.where}",
            }
            for part in parts
        },
        "pack": parts[0].pack,
        "estimators": {"datamodel": {}, "difference_in_means": {}},
        "folder": ".",
    }
    for override in request.overrides:
        if override.partition("=")[0].partition(".")[0] not in FREE:
            raise ConfigError(f"override {override!r}: of an imported sweep only {', '.join(FREE)} can be set")
        apply_override(raw, override)
    return Sweep.of(validate(raw, "import"), out)


def _write(sweep: Sweep, parts: Sequence[_Part]) -> None:
    """Write the whole sweep beside its place, then move it there."""
    final = sweep.paths.root
    temporary = SweepPaths(final.with_name(f".{final.name}{PARTIAL}"))
    if holder(temporary):
        raise StoreError(f"{final}: another import is writing it")
    with refusing("write", final):
        shutil.rmtree(temporary.root, ignore_errors=True)
        try:
            write_atomically(temporary.config, sweep.resolved_yaml().encode())
            _fill(sweep, temporary, parts)
            if final.exists():
                final.rmdir()
            os.rename(temporary.root, final)
            sync(final.parent)
        finally:
            shutil.rmtree(temporary.root, ignore_errors=True)


def _fill(sweep: Sweep, paths: SweepPaths, parts: Sequence[_Part]) -> None:
    runs = parts[0].surveyed.runs
    # To whoever reads the store they are runs of subsets that somebody brought.
    layouts = [DesignLayout(part.name, "explicit", part.purpose, len(part.chosen), part.pack) for part in parts]
    notes = {f"{part.name}_source": sweep.config.designs[part.name].model_dump()["source"] for part in parts}
    left_out = {f"{part.name}_left_out": part.surveyed.runs.left_out for part in parts}
    with RunStore.create(
        paths,
        config_hash=sweep.config.identity(),
        n=runs.n,
        t=runs.t,
        measures=sweep.config.measures,
        designs=layouts,
        attributes={**provenance(sweep), **notes, **left_out, "seeds": "unknown, kept as 0"},
    ) as store:
        for part in parts:
            _fill_design(store, part, sweep.config.measures[0])


def _fill_design(store: RunStore, part: _Part, measure: str) -> None:
    """Write the plan of all runs, then the outputs of those that have them."""
    subsets, repeats = part.numbers()
    for start, chosen in part.packs():
        rows = slice(start, start + len(chosen))
        masks, _ = part.surveyed.runs.block(chosen)
        store.write_plan(part.name, start, masks, np.zeros(len(chosen), np.uint32), subsets[rows], repeats[rows])
    for start, chosen in part.packs():
        _, outputs = part.surveyed.runs.block(chosen)
        outcomes = [
            Outcome(start + k, {measure: outputs[k]})
            if part.surveyed.finite[run]
            else Outcome(start + k, failure=NOT_FINITE)
            for k, run in enumerate(chosen)
        ]
        store.commit(part.name, start // part.pack, outcomes, worker="import", started=0, seconds=0)


def _summary(part: _Part) -> Imported:
    return Imported(
        part.name,
        part.purpose,
        f"{part.surveyed.runs.format}, {part.surveyed.runs.where}",
        len({part.surveyed.keys[run] for run in part.chosen}),
        len(part.chosen),
        int((~part.surveyed.finite[part.chosen]).sum()),
        part.surveyed.runs.left_out,
    )
