"""Options of an estimator chosen by fitting runs: the grid is tried, and judged by the LDS on subsets of a fitting design.

Runs that estimators are judged by are never looked at. An estimator that is itself fitted on the design that chooses is fitted on
some of its subsets and judged by the others, then fitted on all of them with what was chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from estimators.contract import Attribution
from estimators.evidence import Evidence, Runs
from estimators.scores import Score, difference, lds
from estimators.tuning import Tried, Tuning, worded
from estimators.workspace import Workspace
from orchestrator.attribution.evidence import load_runs
from orchestrator.attribution.kept_trials import keep_trial, kept_trial
from orchestrator.attribution.numbers_of_models import Answer
from orchestrator.config.estimator_section import Candidate
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.roles import tuning_design
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, CounterfactoryError, DataError, StoreError

MOST = 1000
"""Subsets that choose, at most: more tell values of an option no better apart."""
EVERY = 4
"""Of a design that an estimator is fitted on too, every so many-th subset chooses, and the others are fitted on."""
RESAMPLES = 200
"""Of the intervals of what was tried."""


@dataclass(frozen=True)
class _Judges:
    """The runs that choose, and what estimators are given while they do."""

    runs: Runs
    given: Evidence
    held_out: bool
    """Whether `given` lacks these runs, because estimators are fitted on others of the same design."""


@dataclass(frozen=True)
class _Best:
    """The best combination by now."""

    candidate: Candidate
    made: Attribution
    score: Score


def tuned(
    sweep: Sweep, store: RunStore, label: str, evidence: Evidence, workspace: Callable[[str], Workspace]
) -> tuple[Candidate, Answer]:
    """Return the best candidate of a tuned estimator with its answer, which tells how it was chosen and what that cost.

    `workspace` is where an estimator works, by what else tells its pieces from others. What is done is kept there, so that an
    interrupted tuning goes on where it was, and charges what was spent before. Raises DataError where the runs do not
    suffice to choose, ConfigError where nothing can be computed with any of the values.
    """
    started, earlier = time.perf_counter(), 0.0
    judges = _judges(sweep, store, label, evidence)
    best: _Best | None = None
    worst: Score | None = None
    tried = []
    for candidate in sweep.config.estimators[label].candidates:
        clock, part = time.perf_counter(), f"tune: {worded(candidate.values)}"
        try:
            made, before = _tried(candidate, judges.given, workspace(part))
            score = lds(made.values, judges.runs, resamples=RESAMPLES, seed=sweep.config.seed)
        except StoreError:
            raise
        except CounterfactoryError as error:
            tried.append(_failed(candidate, time.perf_counter() - clock, str(error)))
            continue
        earlier += before
        seconds = before + time.perf_counter() - clock
        tried.append(Tried(candidate.values, score.value, score.low, score.high, seconds))
        best = _Best(candidate, made, score) if best is None or score.value > best.score.value else best
        worst = score if worst is None or score.value < worst.value else worst
    if best is None or worst is None:
        raise ConfigError(f"tune: nothing can be computed with {worded(tried[0].values)}: {tried[0].why}")
    made = (
        best.candidate.options.attribute(replace(evidence, workspace=workspace(""))) if judges.held_out else best.made
    )
    tuning = Tuning(
        chosen=best.candidate.values,
        tried=tuple(tried),
        design=judges.runs.design,
        subsets=best.score.subsets,
        held_out=judges.held_out,
        told_apart=difference(best.score.resampled, worst.resampled).low > 0,
        seconds=sum(one.seconds for one in tried),
    )
    return best.candidate, Answer(_told(made, tuning), earlier + time.perf_counter() - started)


def _tried(candidate: Candidate, given: Evidence, workspace: Workspace) -> tuple[Attribution, float]:
    """Return what one combination gives, and the time that an interrupted call took for it: nothing is computed twice."""
    if (found := kept_trial(workspace)) is not None:
        return found
    clock = time.perf_counter()
    made = candidate.options.attribute(replace(given, workspace=workspace))
    keep_trial(workspace, made, time.perf_counter() - clock)
    return made, 0.0


def _failed(candidate: Candidate, seconds: float, why: str) -> Tried:
    return Tried(candidate.values, np.nan, np.nan, np.nan, seconds, why)


def _told(made: Attribution, tuning: Tuning) -> Attribution:
    """Return the attribution with how it was tuned; it is then fitted on the design that chose, too, and scored on none of it."""
    fitted_on = tuple(dict.fromkeys((*made.fitted_on, tuning.design)))
    return replace(made, fitted_on=fitted_on, findings=replace(made.findings, tuning=tuning))


def _judges(sweep: Sweep, store: RunStore, label: str, evidence: Evidence) -> _Judges:
    """Return the runs that choose: all of a design's, at most `MOST` subsets, or a part where estimators are fitted on it."""
    design = tuning_design(sweep.config, label)
    rows = store.finished(design)
    subsets = store.subsets(design)[rows]
    shared = bool(sweep.config.designs[design].serves & sweep.config.estimators[label].needed)
    known = np.unique(subsets)
    chosen = (known[EVERY - 1 :: EVERY] if shared else known)[:MOST]
    if len(chosen) < 2:
        part = f" (one in {EVERY} of those that it is fitted on)" if shared else ""
        raise DataError(
            f"tune: needs two finished subsets of {design} to choose by{part}, found {len(chosen)} of {len(known)} in all"
        )

    def among(some: NDArray[np.int64]) -> Runs:
        return load_runs(sweep, store, design, evidence.measure, some)

    choosing = np.isin(subsets, chosen)
    runs, others = among(rows[choosing]), rows[~choosing]
    if not shared:
        return _Judges(runs, evidence, held_out=False)
    # A design may repeat a mask under another number: what is fitted on shares none with what chooses.
    masks = {mask.tobytes() for mask in np.packbits(runs.masks, axis=1)}
    fit = among(others[[mask.tobytes() not in masks for mask in np.packbits(among(others).masks, axis=1)]])
    return _Judges(runs, replace(evidence, runs={**evidence.runs, design: fit}), held_out=True)
