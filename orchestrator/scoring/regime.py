"""The regime of a score: which subsets its runs saw, and whose batches. Scores of different regimes are different quantities."""

from __future__ import annotations

import math

from orchestrator.scoring.table import ScoreRow

Regime = tuple[str, str]
"""The fraction kept, as it is said, and the order; "" for what is unknown or does not apply."""


def regime_of(row: ScoreRow) -> Regime:
    """Return what rows of one table have in common: fractions that are said alike count as one, since coins vary a little."""
    return percent_kept(row.alpha), row.order


def percent_kept(alpha: float) -> str:
    """Return a fraction kept in percent, with two digits of what is kept or of what is dropped, whichever is less; "" for NaN.

    >>> from orchestrator.scoring.regime import percent_kept
    >>> [percent_kept(alpha) for alpha in (0.5, 0.4987, 0.99, 0.9995, 1.0)]
    ['50%', '50%', '99%', '99.95%', '100%']
    """
    if math.isnan(alpha):
        return ""
    less = 100 * min(alpha, 1 - alpha)
    if not less > 0:
        return f"{100 * alpha:.0f}%"
    digits = max(0, 1 - math.floor(math.log10(less) + 1e-9))
    shown = f"{100 * alpha:.{digits}f}"
    return f"{shown.rstrip('0').rstrip('.') if digits else shown}%"
