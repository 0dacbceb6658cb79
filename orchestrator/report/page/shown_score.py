"""One scored number as tables and figures show it, and the scale of the bars beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.scoring.table import ScoreRow


@dataclass(frozen=True)
class ShownScore:
    """A scored number with its 95% interval; NaN where unknown."""

    value: float
    low: float
    high: float
    ceiling: float
    share: float = math.nan
    """Value as a share of the ceiling, with its 95% interval; NaN where there is none."""
    share_low: float = math.nan
    share_high: float = math.nan
    ceiling_low: float = math.nan
    ceiling_high: float = math.nan

    @classmethod
    def of(cls, row: ScoreRow) -> ShownScore:
        """Return the number of one row of the score table."""
        return cls(
            row.value,
            row.low,
            row.high,
            row.ceiling,
            row.share,
            row.share_low,
            row.share_high,
            row.ceiling_low,
            row.ceiling_high,
        )

    @property
    def covers_zero(self) -> bool:
        """Whether 0 lies inside the interval."""
        return self.low <= 0 <= self.high

    @property
    def drawn_ceiling(self) -> float:
        """The ceiling where a figure may show it: NaN where it is unknown or cannot be told from 0."""
        return math.nan if self.nothing_to_find else self.ceiling

    @property
    def nothing_to_find(self) -> bool:
        """Whether the ceiling cannot be told from 0."""
        return self.ceiling_low <= 0


@dataclass(frozen=True)
class Scale:
    """What the width of a table's inline bars stands for."""

    low: float
    """Value at the left end."""
    span: float
    """From the left end to the right one; above 0."""

    def percent(self, value: float) -> str:
        """Return how far to the right a value is, such as "12.50%"."""
        return f"{(value - self.low) / self.span * 100:.2f}%"


def scale_of(scores: Iterable[ShownScore]) -> Scale:
    """Return the scale of a table's bars: 0 and every value, interval and ceiling are inside."""
    values = [v for s in scores for v in (s.value, s.low, s.high, s.drawn_ceiling) if math.isfinite(v)]
    low, high = min([0.0, *values]), max([0.0, *values])
    margin = 0.03 * ((high - low) or 1.0)
    return Scale(low - margin, (high - low) + 2 * margin)
