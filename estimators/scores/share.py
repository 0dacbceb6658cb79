"""A score as a share of its ceiling, with an interval of its own."""

from __future__ import annotations

import numpy as np

from estimators.scores.result import Estimate


def share_of(score: Estimate, ceiling: Estimate, correlation: float) -> Estimate:
    """Return score / ceiling and its interval, given the correlation of their errors; NaN where the ceiling's interval reaches 0.

    The interval holds every share x for which score - x ceiling cannot be told from 0 (Fieller 1954), the interval of that
    difference being put together from those of the two (MOVER, Donner & Zou 2012). Both come from the same subsets and
    queries: what moves them together moves their ratio little.

    >>> from estimators.scores.result import Estimate
    >>> from estimators.scores.share import share_of
    >>> [round(x, 2) for x in share_of(Estimate(0.4, 0.3, 0.5), Estimate(0.5, 0.4, 0.6), 0.0)]
    [0.8, 0.57, 1.1]
    >>> [round(x, 2) for x in share_of(Estimate(0.4, 0.3, 0.5), Estimate(0.5, 0.4, 0.6), 0.9)]
    [0.8, 0.7, 0.89]
    >>> share_of(Estimate(0.4, 0.3, 0.5), Estimate(0.1, 0.0, 0.2), 0.9).value
    nan
    """
    from scipy.optimize import brentq

    if not ceiling.low > 0:
        return Estimate(np.nan, np.nan, np.nan)
    value = score.value / ceiling.value
    if not np.isfinite([score.low, score.high]).all():
        return Estimate(value, np.nan, np.nan)

    def apart(x: float, side: int) -> float:
        """Return the lower (side -1) or upper (1) end of the interval of score - x ceiling."""
        of_score = (score.value - score.low) if side < 0 else (score.high - score.value)
        down = (side < 0) == (x < 0)
        of_ceiling = abs(x) * ((ceiling.value - ceiling.low) if down else (ceiling.high - ceiling.value))
        common = 2 * correlation * np.sign(x) * of_score * of_ceiling
        return float(score.value - x * ceiling.value + side * np.sqrt(of_score**2 + of_ceiling**2 - common))

    far = 2 * (abs(score.value) + abs(score.low) + abs(score.high) + ceiling.high) / ceiling.low
    low, high = (float(brentq(apart, *ends, args=(side,))) for ends, side in (((-far, value), -1), ((value, far), 1)))
    return Estimate(value, low, high)
