"""Uncertainty of the coefficients by resampling subsets, one pass over the blocks a resample."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.lasso.collect import Block, Split
from estimators.lasso.fit import Fit, refit
from estimators.lasso.ridge import refit_ridge
from estimators.lasso.settings import Settings
from estimators.lasso.solution import Column
from estimators.lasso.statistics import Floats, Statistics


def bootstrap(
    blocks: Callable[[], Iterable[Block]], split: Split, found: Fit, shift: Floats, settings: Settings
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Return standard errors (t, n) and selection frequencies (t, n) of the coefficients of a fit at its lambdas.

    Every subset enters a resample Poisson(1) times, together with all its runs (Hanley, MacGibbon 2006), so that blocks can
    be read one after the other. lambda is not chosen anew, and the bias of the penalty's shrinkage is not in the spread. `shift`
    (t,) is any rough level of the outputs.
    """
    distinct, inverse = np.unique(split.subsets, return_inverse=True)
    total = squares = used = np.zeros(())
    for resample in range(settings.bootstrap):
        draws = np.random.default_rng([split.seed, resample]).poisson(1.0, len(distinct))[inverse]
        statistics, row = None, 0
        for masks, outputs in blocks():
            statistics = statistics or Statistics.empty(masks.shape[1], shift)
            repeats = draws[row : row + len(masks)]
            row += len(masks)
            statistics.accumulate(
                np.repeat(masks, repeats, axis=0), np.repeat(outputs, repeats, axis=0), settings.dtype, settings.device
            )
        assert statistics is not None
        w = _solved(statistics, found, settings)
        total, squares, used = total + w, squares + w * w, used + (w != 0)
    count = settings.bootstrap
    variance = np.maximum(squares - total * total / count, 0) / max(count - 1, 1)
    return np.sqrt(variance).astype(settings.dtype), (used / count).astype(settings.dtype)


def _solved(statistics: Statistics, found: Fit, settings: Settings) -> Floats:
    """Return the coefficients (t, n) on a resample; those of the fit, which are near, are where the search begins."""
    if settings.penalty == "ridge":
        return refit_ridge(statistics, found.penalties, settings)[0]
    starts = found.coefficients
    if settings.standardize:  # a start is in the solver's units: coefficients of scaled columns
        share = np.diagonal(statistics.gram) / statistics.rows
        starts = starts * np.sqrt(share * (1 - share))
    columns = [Column(index, row[index]) for row in starts for index in [np.flatnonzero(row)]]
    return refit(statistics, found.penalties, settings, columns)[0].astype(np.float64)
