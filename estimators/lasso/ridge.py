"""Pure ridge for all queries and all lambdas from one eigendecomposition of the Gram matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.lasso.collect import Collected, Held
from estimators.lasso.settings import Settings
from estimators.lasso.statistics import Floats, Quadratic, Statistics

Ridge = tuple[Floats, Floats, Floats, NDArray[np.int64], Floats, list[NDArray[np.floating[Any]]]]


def fit_ridge(collected: Collected, settings: Settings) -> Ridge:
    """Minimize 1/(2m) ||y - b - Xw||^2 + lambda/2 ||w||^2, lambda chosen on held-out subsets, refitted on all runs.

    The path runs from 100 times the largest eigenvalue of the Gram matrix down by epsilon squared. Returns coefficients (t, n),
    intercepts (t,), penalties (t,), positions on the path (t,), a bound on the suboptimality relative to the objective at w = 0
    (t,), and every fold's held-out predictions (t, h).
    """
    everything = collected.everything()
    grid = _largest_eigenvalue(everything, settings) * 100 * settings.grid() ** 2
    folds = [_Fold(collected.fitting(f), held, settings) for f, held in enumerate(collected.held)]
    errors = np.array([[fold.errors(penalty) for fold in folds] for penalty in grid])  # (L, folds, t, 2)
    mean = errors[..., 0].mean(1)
    best = mean.argmin(0)
    if settings.rule == "one_standard_error":
        spread = errors[:, 0, :, 1] if len(folds) == 1 else errors[..., 0].std(1, ddof=1) / np.sqrt(len(folds))
        queries = np.arange(len(best))
        best = (mean <= mean[best, queries] + spread[best, queries]).argmax(0)
    penalties = grid[best]
    coefficients, intercepts, gaps = refit_ridge(everything, penalties, settings)
    return coefficients, intercepts, penalties, best, gaps, [fold.predict(penalties) for fold in folds]


def refit_ridge(statistics: Statistics, penalties: Floats, settings: Settings) -> tuple[Floats, Floats, Floats]:
    """Solve at one lambda a query (t,) on these runs; return coefficients (t, n), intercepts (t,) and relative gaps (t,)."""
    t = statistics.t
    coefficients, intercepts, gaps = np.zeros((t, statistics.n)), np.empty(t), np.empty(t)
    for problem in statistics.quadratics(np.float64, settings.standardize):
        chosen = problem.queries
        solution = _Spectrum(problem).solve(penalties[chosen])
        residual = problem.cross - solution @ problem.gram - penalties[chosen, None] * solution
        power = np.where(problem.power > 0, problem.power, 1)
        gaps[chosen] = np.square(residual).sum(1) / penalties[chosen] / power  # strong convexity
        coefficients[chosen] = solution * problem.scales
        intercepts[chosen] = problem.output_means - coefficients[chosen] @ problem.mask_means
    return coefficients, intercepts, gaps


def _largest_eigenvalue(statistics: Statistics, settings: Settings) -> float:
    problem = next(statistics.quadratics(np.float64, settings.standardize))
    largest = float(np.linalg.eigvalsh(problem.gram)[-1])
    return largest if largest > 0 else 1.0


class _Spectrum:
    """A problem in the eigenbasis of its Gram matrix."""

    def __init__(self, problem: Quadratic):
        values, self.vectors = np.linalg.eigh(problem.gram)
        self.values = np.maximum(values, 0)
        self.cross = problem.cross @ self.vectors

    def solve(self, penalties: Floats) -> Floats:
        """Return the solutions (k, n) for one penalty a query (k,)."""
        solution: Floats = (self.cross / (self.values + penalties[:, None])) @ self.vectors.T
        return solution


class _Fold:
    """The runs outside one fold, decomposed, and the fold's subsets in the same basis."""

    def __init__(self, statistics: Statistics, held: Held, settings: Settings):
        self.held, self.t = held, statistics.t
        self.problems = [
            (
                problem,
                spectrum,
                spectrum.vectors.T @ ((held.masks - problem.mask_means[:, None]) * problem.scales[:, None]),
            )
            for problem in statistics.quadratics(np.float64, settings.standardize)
            for spectrum in [_Spectrum(problem)]
        ]

    def predict(self, penalties: Floats) -> Floats:
        """Return predictions for the held-out subsets, (t, h), for one penalty a query (t,)."""
        out = np.empty((self.t, self.held.masks.shape[1]))
        for problem, spectrum, rotated in self.problems:
            weights = spectrum.cross / (spectrum.values + penalties[problem.queries, None])
            out[problem.queries] = weights @ rotated + problem.output_means[:, None]
        return out

    def errors(self, penalty: float) -> Floats:
        """Return the mean squared error of each query and its standard error, (t, 2)."""
        squared = np.square(self.held.outputs - self.predict(np.full(self.t, penalty)))
        count = (~np.isnan(squared)).sum(1)
        return np.stack([np.nanmean(squared, axis=1), np.nanstd(squared, axis=1) / np.sqrt(count)], axis=1)
