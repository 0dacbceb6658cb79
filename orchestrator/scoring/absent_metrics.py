"""Scores of metrics that are not installed here: they are data, kept and shown, and cannot be taken again."""

from __future__ import annotations

from orchestrator.scoring.registry import quantities
from orchestrator.scoring.stale import stale_scores
from orchestrator.scoring.table import ScoreRow, read_score_rows
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError


def of_absent_metrics(sweep: Sweep) -> list[ScoreRow]:
    """Return the kept scores that no metric which is installed gives. Raises StoreError where scores.parquet makes no sense."""
    known = quantities()
    return [row for row in read_score_rows(sweep.paths.scores) if row.metric not in known]


def standing_of_absent_metrics(sweep: Sweep) -> list[ScoreRow]:
    """Return those of attributions that are there as they were judged; none where the table makes no sense."""
    try:
        rows = of_absent_metrics(sweep)
        stale = stale_scores(sweep) if rows else {}
    except StoreError:
        return []
    return [row for row in rows if row.estimator not in stale]


def absent_metrics(sweep: Sweep) -> dict[str, str]:
    """Return the quantities of metrics that are not here, by their key: what follows, and the remedy, in a line.

    None where the table makes no sense: whoever shows it says so.
    """
    try:
        names = dict.fromkeys(row.metric for row in of_absent_metrics(sweep))
    except StoreError:
        return {}
    return {
        f"scores.{name}": "no metric that is installed here gives it: its scores are kept and shown, and cannot be taken again; "
        "install the package that registers it"
        for name in names
    }
