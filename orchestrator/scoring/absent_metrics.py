"""Scores of metrics that are not installed here: they are data, kept and shown, and cannot be taken again."""

from __future__ import annotations

from orchestrator.scoring.registry import quantities, unloadable
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


def unloadable_metrics() -> dict[str, str]:
    """Return the metrics of installed packages that cannot be loaded, each a line by its key."""
    return {
        f"metrics.{name}": f"{fault}: its scores are not taken; mend the package"
        for name, fault in unloadable().items()
    }


def absent_metrics(sweep: Sweep) -> dict[str, str]:
    """Return the quantities of metrics that are not here, and the metrics that cannot be loaded, by their key.

    Each is a line of what follows, and the remedy. Of quantities none where the table makes no sense: whoever shows it says so.
    """
    try:
        names = dict.fromkeys(row.metric for row in of_absent_metrics(sweep))
    except StoreError:
        return unloadable_metrics()
    return unloadable_metrics() | {
        f"scores.{name}": "no metric that is installed here gives it: its scores are kept and shown, and cannot be taken again; "
        "install the package that registers it"
        for name in names
    }
