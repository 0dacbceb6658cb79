"""Is the scale of an attribution right: by how much do outputs change where it predicts a change of 1?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.evidence import Runs
from estimators.scores.bootstrap import Resamples, estimate
from estimators.scores.predictions import Predictions
from estimators.scores.result import Score
from estimators.scores.seeds import seeds_per_subset

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """The scale of an attribution; both numbers come from the same resamples."""

    slope: Score
    """By how much the measured output changes where the predicted one changes by 1: 1 is right, below 1 the attribution is too
    large, 0 where it predicts nothing."""
    explained: Score
    """Share of the variance of the measured outputs that the predictions explain as they are: 1 is all of it, 0
    is as good as no prediction, and less than 0 is worse."""


def calibration(
    tau: ArrayLike,
    runs: Runs,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    fitted_masks: NDArray[np.bool_] | None = None,
    planned: int | None = None,
) -> Calibration:
    """Return the calibration of `tau` (n, t), which claims units of the measure, on held-out `runs`.

    With p = masks @ tau and y the outputs averaged over each subset's seeds, both less their means over the subsets,

        slope = sum p y / sum p^2,    explained = 1 - sum (y - p)^2 / sum y^2,

    the sums over subsets and queries: the least-squares slope (Cox 1958) and R^2, with a free intercept a query. Queries weigh
    by their variance. Those whose prediction is the same for all subsets have no part in the slope and are counted as left out
    of it; to what is explained they add what stays unexplained. The intervals are a bootstrap over subsets and queries.

    Noise of the seeds is variance that nothing explains, the more the fewer seeds a subset has; it leaves the slope as it is.
    NaN where no prediction, or no output, varies. Raises DataError as `lds` does.

    >>> from itertools import combinations
    >>> import numpy as np
    >>> from estimators import Runs
    >>> from estimators.scores import calibration
    >>> masks = np.array([np.isin(range(4), pair) for pair in combinations(range(4), 2)])  # 6 subsets of half the examples
    >>> effects = np.array([[2.0], [-1.0], [0.5], [1.0]])
    >>> rows = np.arange(6)
    >>> runs = Runs("score", "subsets", "margin", masks, masks @ effects, subsets=rows, repeats=0 * rows)
    >>> found = calibration(2 * effects, runs)  # every effect twice as large as it is
    >>> round(found.slope.value, 2), round(found.explained.value, 2)
    (0.5, 0.0)
    """
    made = Predictions.of(tau, runs, "a slope", fitted_masks=fitted_masks, planned=planned)
    s, t = made.measured.shape
    drawn = Resamples.draw(s, t, resamples, seed)
    moments = _Moments.of(made.predicted, made.measured, drawn.rows)
    pp, py, yy = (drawn.means(one) for one in (moments.pp, moments.py, moments.yy))
    score = partial(_score, made, seeds=int(seeds_per_subset(runs).max()), level=level)
    slopes = _by_query(moments.py[0], moments.pp[0])
    explained = _by_query(2 * moments.py[0] - moments.pp[0], moments.yy[0])
    return Calibration(
        score("slope", _ratio(py, pp), slopes, made.basis.constant_predictions),
        score("explained_variance", _ratio(2 * py - pp, yy), explained, 0),
    )


def _score(
    made: Predictions, metric: str, resampled: Floats, per_query: Floats, left_out: float, *, seeds: int, level: float
) -> Score:
    """Return one of the two numbers, of the data first in `resampled` (1 + b,); `left_out` queries have no part in it."""
    s, t = made.measured.shape
    return Score(
        metric,
        *estimate(resampled, level),
        ceiling=np.nan,
        per_query=per_query,
        queries=t - int(left_out),
        subsets=s,
        seeds=seeds,
        basis=replace(made.basis, queries_left_out=left_out),
        resampled=resampled,
    )


class _Moments(NamedTuple):
    """Second moments (1 + b, t) around the means, of every query in every resample of the subsets."""

    pp: Floats
    py: Floats
    yy: Floats

    @classmethod
    def of(cls, predicted: Floats, outputs: Floats, counts: NDArray[np.int64]) -> _Moments:
        """Return those of predictions and outputs (s, t), each subset taken `counts` (1 + b, s) times."""
        p, y = predicted - predicted.mean(axis=0), outputs - outputs.mean(axis=0)
        weights = counts / counts.sum(axis=1, keepdims=True)
        of_p, of_y = weights @ p, weights @ y
        return cls(weights @ (p * p) - of_p * of_p, weights @ (p * y) - of_p * of_y, weights @ (y * y) - of_y * of_y)


def _ratio(over: Floats, under: Floats) -> Floats:
    """Return (1 + b,) over / under; NaN where nothing varies in the data, 0 where nothing does in a resample alone."""
    found: Floats = np.divide(over, under, out=np.full_like(over, 0.0 if under[0] > 0 else np.nan), where=under > 0)
    return found


def _by_query(over: Floats, under: Floats) -> Floats:
    """Return (t,) over / under; NaN where nothing varies."""
    found: Floats = np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)
    return found
