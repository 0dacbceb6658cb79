"""How well held-out outputs are predicted, query by query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.lasso.statistics import Floats
from estimators.scores.spearman import resampled_spearman as of_columns

BAND = 256
"""Queries ranked at a time, so that the float64 copies stay small."""


def r2(outputs: NDArray[np.floating[Any]], predictions: NDArray[np.floating[Any]]) -> Floats:
    """Return 1 - residual / total sum of squares of each query; outputs (t, h) may have NaN. NaN for a constant output."""
    return _in_bands(_r2, outputs, predictions)


def spearman(outputs: NDArray[np.floating[Any]], predictions: NDArray[np.floating[Any]]) -> Floats:
    """Return each query's Spearman correlation, (t,), mid-ranks for ties; NaN where either side is constant."""
    return _in_bands(_spearman, outputs, predictions)


def resampled_spearman(
    outputs: NDArray[np.floating[Any]], predictions: NDArray[np.floating[Any]], counts: NDArray[np.int64]
) -> Floats:
    """Return each query's Spearman correlation in every resample, (B, t): counts (B, h) say how often it takes each subset.

    Outputs (t, h) may have NaN. 0 where either side is constant.
    """
    absent = np.isnan(outputs)
    full = ~absent.any(axis=1)
    found = np.zeros((len(counts), len(outputs)))
    found[:, full] = of_columns(predictions[full].T, outputs[full].T, counts)
    for q in np.flatnonzero(~full & ~absent.all(axis=1)):
        there = ~absent[q]
        columns = predictions[q, there][:, None], outputs[q, there][:, None]
        found[:, q] = of_columns(*columns, counts[:, there])[:, 0]
    return found


def _in_bands(
    statistic: Callable[[Floats, Floats], Floats],
    outputs: NDArray[np.floating[Any]],
    predictions: NDArray[np.floating[Any]],
) -> Floats:
    values = np.empty(len(outputs))
    for start in range(0, len(outputs), BAND):
        band = slice(start, start + BAND)
        values[band] = statistic(outputs[band].astype(np.float64), predictions[band].astype(np.float64))
    return values


def _r2(y: Floats, predictions: Floats) -> Floats:
    there = ~np.isnan(y)
    means = np.where(there, y, 0).sum(1, keepdims=True) / np.maximum(there.sum(1, keepdims=True), 1)
    total = np.nansum(np.square(y - means), axis=1)
    residual = np.nansum(np.square(y - predictions), axis=1)
    unexplained: Floats = np.divide(residual, total, out=np.full(len(y), np.nan), where=total > 0)
    return 1 - unexplained


def _spearman(y: Floats, predictions: Floats) -> Floats:
    from scipy.stats import rankdata

    absent = np.isnan(y)
    if absent.any():
        rows = [_spearman(v[None, ~a], p[None, ~a])[0] for v, p, a in zip(y, predictions, absent, strict=True)]
        return np.array(rows)
    if y.shape[1] < 2:
        return np.full(len(y), np.nan)
    a, b = rankdata(y, axis=1), rankdata(predictions, axis=1)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norm = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    correlation: Floats = np.divide((a * b).sum(1), norm, out=np.full(len(a), np.nan), where=norm > 0)
    return correlation
