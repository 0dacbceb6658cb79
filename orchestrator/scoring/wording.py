"""What a table of scores says below itself, in the same words in the terminal, the report and a notebook."""

from __future__ import annotations

import math
from collections.abc import Iterable

from orchestrator.scoring.metric import Quantity
from orchestrator.scoring.table import ScoreRow


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
