"""How well a score per example finds the flagged ones (mislabelled, poisoned)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from estimators.scores.result import Estimate
from workers.errors import DataError


def auc(scores: NDArray[np.floating], flagged: NDArray[np.bool_], *, level: float = 0.95) -> Estimate:
    """Return the area under the ROC curve of `scores` (n,) for `flagged` (n,) bool, with DeLong's interval.

    The area is the probability that a flagged example scores higher than another one, ties counting half
    (Mann-Whitney). The interval is normal with the variance of DeLong, DeLong & Clarke-Pearson (1988, eq. 5), cut to
    [0, 1]; it is NaN with a single example on one side. Raises DataError for other shapes or types, non-finite
    scores, or an empty side.

    >>> import numpy as np
    >>> from estimators.scores import auc
    >>> auc(np.array([0.9, 0.8, 0.3, 0.1]), np.array([True, False, True, False])).value  # 3 of the 4 pairs are in order
    0.75
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    scores, flagged = np.asarray(scores), np.asarray(flagged)
    if scores.ndim != 1 or flagged.shape != scores.shape or flagged.dtype != np.bool_:
        raise DataError(
            f"expected scores (n,) and flagged (n,) bool, found {scores.shape} and {flagged.shape} {flagged.dtype}"
        )
    if not np.isfinite(scores).all():
        raise DataError(f"{int((~np.isfinite(scores)).sum())} of the {len(scores)} scores are not finite")
    found = int(flagged.sum())
    others = len(scores) - found
    if not found or not others:
        raise DataError(f"the area under the curve needs flagged and other examples, found {found} and {others}")
    ranks = rankdata(scores)
    # Of each flagged example the share of the others below it, and of each other one that of the flagged.
    beats = (ranks[flagged] - rankdata(scores[flagged])) / others
    beaten = (ranks[~flagged] - rankdata(scores[~flagged])) / found
    area = float(beats.mean())
    if min(found, others) < 2:
        return Estimate(area, np.nan, np.nan)
    spread = float(np.sqrt(beats.var(ddof=1) / found + beaten.var(ddof=1) / others)) * float(ndtri((1 + level) / 2))
    return Estimate(area, max(0.0, area - spread), min(1.0, area + spread))
