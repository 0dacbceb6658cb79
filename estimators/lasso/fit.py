"""The whole pipeline: paths, selection, refit on all runs, certificate, and what a user learns beside the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.lasso.collect import Collected, Split
from estimators.lasso.diagnostics import r2, spearman
from estimators.lasso.gap import relative_gaps
from estimators.lasso.path import solve_paths
from estimators.lasso.ridge import fit_ridge
from estimators.lasso.selection import select
from estimators.lasso.settings import Settings
from estimators.lasso.solution import Column, Paths
from estimators.lasso.statistics import Floats, Statistics
from workers.errors import DataError


@dataclass(frozen=True)
class Fit:
    """The datamodels of t queries, and how good they are."""

    coefficients: NDArray[np.floating[Any]]
    """(t, n)"""
    intercepts: Floats
    """(t,)"""
    penalties: Floats
    """(t,) the chosen lambda of each query."""
    positions: NDArray[np.int64]
    """(t,) its position on the path; the last one means that a smaller epsilon might do better."""
    gaps: Floats
    """(t,) duality gap of the refit relative to the objective at w = 0, from exact statistics."""
    converged: NDArray[np.bool_]
    """(t,) whether the gap is within the tolerance."""
    heldout_r2: Floats
    """(t,) on the subsets that chose lambda (so a little flattering), of the fit without them; NaN for a constant output."""
    heldout_spearman: Floats
    """(t,) Spearman correlation there."""
    nonzeros: NDArray[np.int64]
    """(t,) number of coefficients that are not zero."""
    split: Split
    """Which runs chose lambda."""
    standard_errors: NDArray[np.floating[Any]] | None = None
    """(t, n) over the bootstrap, where one was asked for."""
    frequencies: NDArray[np.floating[Any]] | None = None
    """(t, n) in which fraction of the resamples a coefficient was not zero."""

    def summary(self) -> str:
        """Return what a user should know, in one line."""
        text = (
            f"{len(self.penalties)} queries: held-out Spearman {_mean(self.heldout_spearman)}, R2 {_mean(self.heldout_r2)}, "
            f"{np.median(self.nonzeros):.0f} non-zeros (median), largest relative gap {self.gaps.max(initial=0):.1e}"
        )
        failed = int((~self.converged).sum())
        return text + (f"; {failed} queries did not reach the tolerance" if failed else "")


def _mean(values: Floats) -> str:
    known = values[~np.isnan(values)]
    return f"{known.mean():.3f}" if len(known) else "undefined"


def fit(collected: Collected, settings: Settings) -> Fit:
    """Fit every query: choose its lambda on held-out subsets, then refit on all runs.

    Raises DataError when a query has too few outputs to do so.
    """
    _refuse_unfittable(collected)
    coefficients: NDArray[np.floating[Any]]
    predictions: list[NDArray[np.floating[Any]]]
    if settings.penalty == "ridge":
        coefficients, intercepts, penalties, positions, gaps, predictions = fit_ridge(collected, settings)
    else:
        grid, positions, folds = select(collected, settings)
        penalties = grid[np.arange(len(grid)), positions]
        everything = collected.everything()
        coefficients, intercepts, gaps = refit(everything, penalties, settings, folds[0].columns)
        predictions = [fold.predictions for fold in folds]
    outputs = np.concatenate([held.outputs for held in collected.held], axis=1)
    predicted = np.concatenate(predictions, axis=1)
    return Fit(
        coefficients, intercepts, penalties, positions, gaps, gaps <= settings.tolerance,
        r2(outputs, predicted), spearman(outputs, predicted), (coefficients != 0).sum(axis=1), collected.split,
    )  # fmt: skip


def refit(
    statistics: Statistics, penalties: Floats, settings: Settings, starts: list[Column]
) -> tuple[NDArray[np.floating[Any]], Floats, Floats]:
    """Solve at one lambda a query (t,) on these runs; return coefficients (t, n), intercepts (t,) and relative gaps (t,)."""
    coefficients = np.zeros((statistics.t, statistics.n), settings.dtype)
    intercepts, gaps = np.empty(statistics.t), np.empty(statistics.t)
    for problem in statistics.quadratics(settings.dtype, settings.standardize):
        chosen = problem.queries
        steps = penalties[chosen]
        paths: Paths = solve_paths(problem, steps[:, None], settings, starts=[starts[q] for q in chosen])
        gaps[chosen] = relative_gaps(statistics, problem, paths.columns, steps, settings.ridge, settings.threads)
        for k, query in enumerate(chosen):
            column = paths.columns[k]
            coefficients[query, column.index] = column.values * problem.scales[column.index]
            weights = coefficients[query, column.index].astype(np.float64)
            intercepts[query] = problem.output_means[k] - problem.mask_means[column.index] @ weights
    return coefficients, intercepts, gaps


def _refuse_unfittable(collected: Collected) -> None:
    """Raise DataError for queries that have fewer than two outputs to fit on or none to be judged on, in any fold."""
    for fold, held in enumerate(collected.held):
        seen = collected.observed(fold)
        judged = (~np.isnan(held.outputs)).sum(axis=1)
        bad = np.flatnonzero((seen < 2) | (judged < 1))
        if len(bad):
            q = int(bad[0])
            raise DataError(
                f"{len(bad)} queries have too few outputs: query {q} has {seen[q]} in the fitting runs and {judged[q]} in the "
                "held-out ones, expected at least 2 and 1"
            )
