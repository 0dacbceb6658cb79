"""Removal curves: what becomes of a measure as the best-valued (or worst-valued) examples are taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs
from estimators.scores.result import Estimate
from workers.errors import DataError


@dataclass(frozen=True)
class RemovalCurve:
    """The utility (mean measure over the queries) against the fraction of the examples removed."""

    removed: NDArray[np.float64]
    """(k,) fractions removed, ascending."""
    utility: NDArray[np.float64]
    """(k,) averaged over seeds."""
    standard_error: NDArray[np.float64]
    """(k,) over seeds; NaN where there is one."""
    area: Estimate
    """Mean height of the curve between its first and last fraction, by the trapezoidal rule, in the units of the measure."""


def removal_masks(
    values: NDArray[np.floating[Any]], fractions: Sequence[float], first: Literal["best", "worst"]
) -> NDArray[np.bool_]:
    """Return the subsets (k, n) that remain when fractions of the best-valued (or worst-valued) examples are removed.

    `values` (n,) are high for helpful examples. Ties go by the lower index first. Raises DataError for values that are not
    finite, or fractions that are not ascending in [0, 1) or leave nothing.

    >>> import numpy as np
    >>> from estimators.scores.removal import removal_masks
    >>> removal_masks(np.array([3.0, 1.0, 2.0, 0.0]), [0, 0.25, 0.5], "best").astype(int).tolist()
    [[1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 0, 1]]
    """
    n = len(values)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise DataError(f"expected values (n,), all finite, found shape {values.shape}")
    counts = [round(fraction * n) for fraction in fractions]
    if any(not 0 <= f < 1 for f in fractions) or sorted(set(fractions)) != list(fractions) or n in counts:
        raise DataError(
            f"fractions to remove are {list(fractions)}, expected ascending ones in [0, 1) that leave examples"
        )
    place = np.empty(n, dtype=np.int64)
    place[np.argsort(-values if first == "best" else values, kind="stable")] = np.arange(n)
    return place >= np.array(counts)[:, None]


def removal_curve(runs: Runs, *, level: float = 0.95) -> RemovalCurve:
    """Return the curve of runs whose subsets are nested: each lacks the examples that a larger one lacks, and more.

    The interval of the area is Student's, from the spread of the areas of single queries, and of the areas of single
    repeats where every subset has the same repeats (at least two). The two variances are added, which
    counts a part of the noise twice: it is rather too wide. It tells another choice of queries and seeds, not another
    attribution. Raises DataError for fewer than two sizes, or subsets that are not nested.

    >>> import numpy as np
    >>> from estimators import Runs
    >>> from estimators.scores.removal import removal_curve, removal_masks
    >>> masks = removal_masks(np.array([3.0, 1.0, 2.0, 0.0]), [0, 0.25, 0.5], "best")
    >>> rows, outputs = np.arange(3), masks @ np.array([[3.0], [1.0], [2.0], [0.0]])
    >>> curve = removal_curve(Runs("best", "explicit", "margin", masks, outputs, subsets=rows, repeats=0 * rows))
    >>> curve.removed.tolist(), curve.utility.tolist(), curve.area.value
    ([0.0, 0.25, 0.5], [6.0, 3.0, 1.0], 3.25)
    """
    from scipy.special import stdtrit

    n = runs.masks.shape[1]
    sizes, first, inverse = np.unique(-runs.masks.sum(axis=1), return_index=True, return_inverse=True)
    subsets = runs.masks[first]
    if len(sizes) < 2:
        raise DataError(
            f"design {runs.design!r}: a removal curve needs subsets of two sizes or more, found {len(sizes)}"
        )
    if (runs.masks != subsets[inverse]).any() or (subsets[1:] & ~subsets[:-1]).any():
        raise DataError(f"design {runs.design!r}: its subsets are not nested, expected ever fewer of the same examples")
    removed = 1 + sizes / n
    weights = _trapezoid(removed)
    outputs = [runs.outputs[inverse == k].astype(np.float64) for k in range(len(sizes))]
    per_query = weights @ np.stack([one.mean(axis=0) for one in outputs])
    found = [_variance(areas) for areas in (per_query, _areas_of_repeats(runs, inverse, weights)) if len(areas) > 1]
    quantile = float(stdtrit(min(freedom for _, freedom in found), (1 + level) / 2)) if found else np.nan
    reach = quantile * float(np.sqrt(sum(variance for variance, _ in found)))
    area = float(per_query.mean())
    return RemovalCurve(
        removed,
        np.array([one.mean() for one in outputs]),
        np.array([np.sqrt(_variance(one.mean(axis=1))[0]) for one in outputs]),
        Estimate(area, area - reach, area + reach),
    )


def _trapezoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights (k,) that sum to 1 and give a curve's mean height between its ends."""
    steps = np.diff(x)
    weights = np.append(steps, 0) + np.append(0, steps)
    found: NDArray[np.float64] = weights / weights.sum()
    return found


def _variance(values: NDArray[np.float64]) -> tuple[float, int]:
    """Return the variance of the mean of values (k,), NaN for one, and its degrees of freedom."""
    k = len(values)
    return (float(values.var(ddof=1) / k) if k > 1 else np.nan), k - 1


def _areas_of_repeats(runs: Runs, size: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (r,) the area of each repeat, none where some subset lacks a repeat."""
    repeats, column = np.unique(runs.repeats, return_inverse=True)
    utility = np.full((len(weights), len(repeats)), np.nan)
    utility[size, column] = runs.outputs.mean(axis=1, dtype=np.float64)
    areas: NDArray[np.float64] = weights @ utility
    return areas if np.isfinite(areas).all() else np.empty(0)
