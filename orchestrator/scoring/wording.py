"""What a table of scores says below itself, in the same words in the terminal, the report and a notebook."""

from __future__ import annotations

import math
from collections.abc import Iterable

from orchestrator.scoring.metric import Quantity
from orchestrator.scoring.table import ScoreRow

LEGEND = (
    "best, next: < told from the best, > told from the next, \u2248 not told apart "
    "(the 95% interval of the difference, from the same subsets and queries, holds 0)"
)
"""What the signs of `from_best` and `from_next` mean."""


def is_compared(row: ScoreRow) -> bool:
    """Whether the row's difference to another one is known."""
    return math.isfinite(row.behind_best_low) or math.isfinite(row.ahead_of_next_low)


def from_best(row: ScoreRow) -> str:
    """Return whether the row can be told from the best of its table: "<", or "\u2248" where not; "-" for the best itself."""
    return _told(row.behind_best_low, "<")


def from_next(row: ScoreRow) -> str:
    """Return whether the row can be told from the next: ">", or "\u2248" where not; "-" for the last."""
    return _told(row.ahead_of_next_low, ">")


def _told(low: float, sign: str) -> str:
    """Return the sign where the interval of a difference that is 0 or more lies above 0."""
    if not math.isfinite(low):
        return "-"
    return sign if low > 0 else "\u2248"


def ceilings(shown: Quantity, rows: Iterable[ScoreRow]) -> list[str]:
    """Return a line a measure on the noise ceiling: its interval, or that there was nothing to find; none where it is unknown."""
    if not shown.has_ceiling:
        return []
    known = {row.measure: row for row in rows if math.isfinite(row.ceiling_low)}
    return [_ceiling(row) for row in known.values()]


def _ceiling(row: ScoreRow) -> str:
    ends = f"95% interval {row.ceiling_low:.3f} to {row.ceiling_high:.3f}"
    if row.nothing_to_find:
        return (
            f"{row.measure}: nothing to find. The noise ceiling cannot be told from 0 ({ends}): "
            "models of one subset agree no more than models of different ones. More seeds, or more subsets, may show more."
        )
    return f"{row.measure}: noise ceiling {row.ceiling:.3f}, {ends}"
