"""Whether scores still stand: taken of the attributions that are there."""

from __future__ import annotations

from orchestrator.scoring.table import read_score_rows
from orchestrator.store.attributions import content_hash_of, list_attributions
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError

GONE = "the attribution that was scored is gone"
CHANGED = "its attribution changed since it was scored"


def stale_scores(sweep: Sweep) -> dict[str, str]:
    """Return why the kept scores of an attribution are not those of the one that is there, by its label.

    Scores that do not say which attribution they judged are only held against whether there is one. Raises StoreError where
    scores.parquet makes no sense.
    """
    if not sweep.paths.scores.exists():
        return {}
    judged: dict[str, set[str]] = {}
    for row in read_score_rows(sweep.paths.scores):
        judged.setdefault(row.estimator, set()).add(row.attribution)
    there = list_attributions(sweep.paths)
    reasons = {label: _why(sweep, label, known - {""}, label in there) for label, known in judged.items()}
    return {label: why for label, why in reasons.items() if why}


def _why(sweep: Sweep, label: str, judged: set[str], there: bool) -> str:
    """Return why the scores of one label do not stand; empty where they do, or are of no attribution of the sweep."""
    if not there:
        return GONE if judged or label in sweep.config.estimators else ""
    try:
        now = content_hash_of(sweep.paths, label)
    except StoreError as error:
        return str(error)
    return CHANGED if judged - {now} else ""
