"""How well held-out outputs are predicted, query by query."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from estimators.lasso.statistics import Floats


def r2(outputs: NDArray[np.floating[Any]], predictions: NDArray[np.floating[Any]]) -> Floats:
    """Return 1 - residual / total sum of squares of each query; outputs (t, h) may have NaN. NaN for a constant output."""
    y = outputs.astype(np.float64)
    total = np.nansum(np.square(y - _means(y)), axis=1)
    residual = np.nansum(np.square(y - predictions), axis=1)
    unexplained: Floats = np.divide(residual, total, out=np.full(len(y), np.nan), where=total > 0)
    return 1 - unexplained


def spearman(outputs: NDArray[np.floating[Any]], predictions: NDArray[np.floating[Any]]) -> Floats:
    """Return each query's Spearman correlation, (t,), mid-ranks for ties; NaN where either side is constant."""
    absent = np.isnan(outputs)
    if absent.any():
        rows = [spearman(y[None, ~a], p[None, ~a])[0] for y, p, a in zip(outputs, predictions, absent, strict=True)]
        return np.array(rows)
    if outputs.shape[1] < 2:
        return np.full(len(outputs), np.nan)
    a = rankdata(outputs, axis=1)
    b = rankdata(predictions, axis=1)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norm = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    correlation: Floats = np.divide((a * b).sum(1), norm, out=np.full(len(a), np.nan), where=norm > 0)
    return correlation


def _means(y: Floats) -> Floats:
    there = ~np.isnan(y)
    means: Floats = np.where(there, y, 0).sum(1, keepdims=True) / np.maximum(there.sum(1, keepdims=True), 1)
    return means
