"""The examples that an attribution says are mislabelled, by name: the most suspicious first."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.scores.per_example import Valued
from orchestrator.scoring.detection import DETECTION
from orchestrator.scoring.ends import declared_better
from orchestrator.scoring.stale import stale_scores
from orchestrator.scoring.table import read_score_rows
from orchestrator.store.attributions import StoredAttribution, list_attributions, read_attribution
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.task_record import read_record
from workers.errors import ConfigError, StoreError

SHOWN = 10
"""Suspects that a table or a page shows."""


@dataclass(frozen=True)
class Suspects:
    """What one attribution says, and what the task says of it."""

    estimator: str
    measure: str
    examples: NDArray[np.int64]
    """(k,) training examples, the most suspicious first."""
    suspicion: NDArray[np.float64]
    """(k,) the number that ranks them, in units of the attribution (docs/values.md)."""
    labels: tuple[str | None, ...]
    """(k,) the labels they have, None where the task names none."""
    mislabelled: NDArray[np.bool_] | None
    """(k,) whether the task mislabelled each on purpose; None where it says nothing of that."""
    wrong: int = 0
    """How many of all that were ranked the task mislabelled."""

    @property
    def verdict(self) -> str:
        """How many of them are right, in words; empty where nobody knows."""
        if self.mislabelled is None:
            return ""
        return (
            f"{int(self.mislabelled.sum()):,} of these {len(self.examples):,} are mislabelled, of {self.wrong:,} in all"
        )


def suspects(sweep: Sweep, k: int = SHOWN, estimator: str | None = None) -> Suspects:
    """Return the `k` most suspicious examples of an attribution, by default of the one that finds the mislabelled ones best.

    Raises ConfigError where nothing says which one that is, and for a measure of which nobody said what is good; StoreError,
    with near names, for an attribution that is not there.
    """
    label = estimator or best_detector(sweep) or _only_one(sweep)
    return suspects_of(sweep, label, read_attribution(sweep.paths, label), k)


def suspects_of(sweep: Sweep, label: str, kept: StoredAttribution, k: int = SHOWN) -> Suspects:
    """Return the `k` most suspicious examples of an attribution that was read. Raises as `suspects` does."""
    measure, record = kept.attributes.measure, read_record(sweep).examples
    try:
        examples, suspicion = Valued(kept.values, kept.utility, measure, sweep.queries).suspicion(
            declared_better(sweep.config)
        )
    except ConfigError as error:
        raise ConfigError(f"scores.detection.{error}") from error
    order = np.argsort(-suspicion, kind="stable")[:k]
    chosen, wrong = examples[order], record.mislabelled
    return Suspects(
        label,
        measure,
        chosen,
        suspicion[order],
        tuple(record.labels.get(("train", int(example))) for example in chosen),
        None if wrong is None else wrong[chosen],
        0 if wrong is None else int(wrong[examples].sum()),
    )


def best_detector(sweep: Sweep) -> str | None:
    """Return the attribution that finds the mislabelled examples best, as it was scored; None where none was, or stands."""
    if not sweep.paths.scores.exists():
        return None
    stale, there = stale_scores(sweep), list_attributions(sweep.paths)
    scored = [row for row in read_score_rows(sweep.paths.scores) if row.metric == DETECTION.name]
    able = [
        row for row in scored if row.estimator in there and row.estimator not in stale and not math.isnan(row.value)
    ]
    return max(able, key=lambda row: row.value).estimator if able else None


def named_suspects(sweep: Sweep) -> Suspects | None:
    """Return the suspects that are shown without being asked for, None where there are none.

    Those of the best detector; where the task mislabelled nothing, of the only attribution, if its queries are the training
    examples: whether a label is learned by heart is what such a sweep asks.
    """
    try:
        label = best_detector(sweep) or _only_one_of_training_examples(sweep)
        return None if label is None else suspects(sweep, estimator=label)
    except (ConfigError, StoreError):  # of which nobody says what is good, or damaged: whoever shows it says that
        return None


def _only_one_of_training_examples(sweep: Sweep) -> str | None:
    there = list_attributions(sweep.paths)
    asked = sweep.config.scores.detection is not None and sweep.queries.source == "train"
    return there[0] if asked and len(there) == 1 and read_record(sweep).examples.mislabelled is None else None


def _only_one(sweep: Sweep) -> str:
    there = list_attributions(sweep.paths)
    if len(there) == 1:
        return there[0]
    raise ConfigError(
        f"estimator: no score says whose suspects are the best (`detection_auc`); name one of {', '.join(there)}"
        if there
        else f"{sweep.paths.root}: has no attributions, so no suspects"
    )
