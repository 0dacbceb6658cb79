"""What is to be imported, looked at once: which runs there are, of which subsets, and which of them are for which purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.imports.foreign_runs import ForeignRuns
from orchestrator.imports.registry import read
from workers.errors import ConfigError, DataError

HOLDOUT = 0.1
"""Fraction of the subsets that is kept for scoring when nobody says otherwise."""
BLOCK_BYTES = 8 * 2**20
"""What a pack may take in the store, about."""
MOST_ROWS = 4096
"""And the runs that it has at most."""
FEWEST_FITTING, FEWEST_SCORING = 4, 2
"""Subsets that a datamodel and the LDS need at least."""


@dataclass(frozen=True)
class Request:
    """What is to be imported."""

    fit: Path
    """The source of the runs to fit on."""
    outputs: str | None = None
    """Their outputs: a name in the source's folder, or a file; None where there is only one that it can be."""
    score: Path | None = None
    """The source of the runs to score on; None splits them off the others."""
    score_outputs: str | None = None
    """Their outputs; None: named as the fitting runs'."""
    measure: str | None = None
    """What the outputs are; None: what the format keeps."""
    n: int | None = None
    """Training examples, where the source does not say."""
    holdout: float | None = None
    """Fraction of the subsets that are kept for scoring, without `score`; None takes a tenth."""
    seed: int = 0
    """Draws these subsets, and is the sweep's."""
    keep_signs: bool = False
    """Whether outputs that a format keeps negated are taken as they are."""
    overrides: tuple[str, ...] = ()
    """Estimators, scores and the like, as `key.sub=value`."""


@dataclass(frozen=True)
class Surveyed:
    """Runs, looked at once: what their subsets are and whether their outputs are finite."""

    runs: ForeignRuns
    keys: list[bytes]
    """(m,) a hash of each run's mask."""
    finite: NDArray[np.bool_]
    """(m,)"""


@dataclass(frozen=True)
class Part:
    """Some runs of a source on their way to be a design."""

    name: str
    """The design's: its purpose, or what its subsets are."""
    purpose: str
    """fit or score."""
    surveyed: Surveyed
    """All runs of the source."""
    chosen: NDArray[np.int64]
    """(m,) which of them."""
    pack: int
    """How many are read and stored at a time."""

    @property
    def source(self) -> str:
        """Where they come from: the format and the place."""
        return f"{self.surveyed.runs.format}, {self.surveyed.runs.where}"

    def numbers(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return subset and repeat of each run, (m,) each: runs with equal masks are repeats of one subset."""
        seen: dict[bytes, list[int]] = {}
        subsets, repeats = np.empty(len(self.chosen), np.int64), np.empty(len(self.chosen), np.int32)
        for row, run in enumerate(self.chosen):
            number, count = seen.setdefault(self.surveyed.keys[run], [len(seen), 0])
            subsets[row], repeats[row] = number, count
            seen[self.surveyed.keys[run]][1] += 1
        return subsets, repeats

    def seeds(self) -> NDArray[np.uint32]:
        """Return the seed of each run, (m,): 0 where the source does not say."""
        kept = self.surveyed.runs.seeds
        return np.zeros(len(self.chosen), np.uint32) if kept is None else kept[self.chosen]

    def packs(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield first row and runs of every pack."""
        for start in range(0, len(self.chosen), self.pack):
            yield start, self.chosen[start : start + self.pack]


def held_out_fraction(request: Request) -> float:
    """Return the fraction of the subsets that is kept for scoring. Raises ConfigError for one that is none."""
    fraction = HOLDOUT if request.holdout is None else request.holdout
    if not 0 <= fraction < 1:
        raise ConfigError(f"--holdout {fraction:g}: expected a fraction, at least 0 and below 1")
    return fraction


def read_source(request: Request, source: Path, outputs: str | None) -> ForeignRuns:
    """Return the runs of one source, with the signs that the request asks for. Raises DataError, ConfigError."""
    runs = read(source, outputs, request.n)
    return replace(runs, negated=False) if request.keep_signs else runs


def survey(runs: ForeignRuns) -> Surveyed:
    """Read everything once. Raises DataError for masks that are not 0/1, and for empty subsets."""
    keys: list[bytes] = []
    finite, empty = np.empty(len(runs), bool), []
    step = rows_at_once(runs)
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
    return Surveyed(runs, keys, finite)


def survey_scoring(request: Request, fit: Surveyed) -> Surveyed:
    """Survey the scoring runs. Raises DataError unless they are of the same examples and queries, and of other subsets."""
    assert request.score is not None
    if request.holdout is not None:
        raise ConfigError("--holdout goes without --score: the scoring runs are either given or split off")
    score = survey(read_source(request, request.score, request.score_outputs or request.outputs))
    if score.runs.outputs_file.resolve() == fit.runs.outputs_file.resolve():
        raise ConfigError(
            f"{fit.runs.outputs_file} would be the outputs of the fitting and of the scoring runs: name the latter's with "
            "--score-outputs"
        )
    _refuse_other_outputs(request, fit, score)
    _refuse_shared_subsets(fit, score)
    return score


def _refuse_other_outputs(request: Request, fit: Surveyed, score: Surveyed) -> None:
    """Raise DataError unless both are runs of as many examples and queries, and of one measure."""
    fitting, scoring = (fit.runs.n, fit.runs.t), (score.runs.n, score.runs.t)
    if fitting != scoring:
        raise DataError(
            f"{request.fit} has {fitting[0]} examples and {fitting[1]} queries, {request.score} has {scoring[0]} and "
            f"{scoring[1]}: fitting and scoring runs must be of the same ones"
        )
    if request.measure is None and fit.runs.measure != score.runs.measure:
        raise ConfigError(
            f"{request.fit} keeps {fit.runs.measure!r} by default, {request.score} {score.runs.measure!r}: name the outputs of "
            "both with --measure"
        )


def _refuse_shared_subsets(fit: Surveyed, score: Surveyed) -> None:
    """Raise DataError for scoring runs of subsets that are fitted on."""
    first = {key: run for run, key in reversed(list(enumerate(fit.keys)))}
    shared = [run for run, key in enumerate(score.keys) if key in first]
    if shared:
        raise DataError(
            f"{len({score.keys[run] for run in shared})} of the {len(set(score.keys))} scoring subsets are also among the "
            f"{len(set(fit.keys))} fitting ones (scoring run {shared[0]} is fitting run {first[score.keys[shared[0]]]}): a "
            "method must not be scored on subsets it was fitted on"
        )


def survey_others(*sources: Surveyed) -> dict[str, Surveyed]:
    """Survey the runs of other subsets that sources have beside theirs, by what they are; the first that has a kind gives it."""
    found: dict[str, Surveyed] = {}
    for source in sources:
        for what, runs in source.runs.others.items():
            if what not in found:
                if (runs.n, runs.t) != (source.runs.n, source.runs.t):
                    raise DataError(
                        f"{runs.where}: its runs of kind {what!r} are of {runs.n} examples and {runs.t} queries, the others of "
                        f"{source.runs.n} and {source.runs.t}"
                    )
                found[what] = survey(runs)
    return found


def split_off(surveyed: Surveyed, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split whole subsets, drawn by the seed; return the fitting runs and the scoring runs, in their order."""
    distinct = list(dict.fromkeys(surveyed.keys))
    count = max(FEWEST_SCORING, round(fraction * len(distinct))) if fraction else 0
    drawn = np.random.default_rng(seed).permutation(len(distinct))[:count]
    held = {distinct[k] for k in drawn}
    scoring = np.array([key in held for key in surveyed.keys])
    return np.flatnonzero(~scoring), np.flatnonzero(scoring)


def refuse_unusable(part: Part) -> None:
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


def rows_at_once(runs: ForeignRuns) -> int:
    """Return the rows that are read and stored at a time."""
    return int(np.clip(BLOCK_BYTES // max(runs.n // 8 + 1, 4 * runs.t), 1, min(MOST_ROWS, max(1, len(runs)))))
