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

    @classmethod
    def of(cls, row: ScoreRow) -> ShownScore:
        """Return the number of one row of the score table."""
        return cls(row.value, row.low, row.high, row.ceiling)

    @property
    def covers_zero(self) -> bool:
        """Whether 0 lies inside the interval."""
        return self.low <= 0 <= self.high

    @property
    def of_ceiling(self) -> float:
        """Value as a fraction of the ceiling; NaN without a positive ceiling."""
        return self.value / self.ceiling if self.ceiling > 0 else math.nan


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
    values = [v for s in scores for v in (s.value, s.low, s.high, s.ceiling) if math.isfinite(v)]
    low, high = min([0.0, *values]), max([0.0, *values])
    margin = 0.03 * ((high - low) or 1.0)
    return Scale(low - margin, (high - low) + 2 * margin)
