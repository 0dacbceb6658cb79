"""Choosing every query's lambda on held-out subsets: one part or k folds, the minimum or the one-standard-error rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from estimators.lasso.collect import Collected, Held
from estimators.lasso.path import solve_paths
from estimators.lasso.settings import Settings
from estimators.lasso.solution import Column, Paths
from estimators.lasso.statistics import Floats, Statistics


def penalty_grid(statistics: Statistics, settings: Settings) -> Floats:
    """Return every query's geometric path (t, L), from its own lambda_max on these runs."""
    largest = np.empty(statistics.t)
    for problem in statistics.quadratics(settings.dtype, settings.standardize):
        largest[problem.queries] = problem.largest_penalty()
    return largest[:, None] * settings.grid()


def walk_paths(
    statistics: Statistics,
    penalties: Floats | None,
    held: Held,
    settings: Settings,
    patience: int | None,
    starts: list[Column] | None = None,
) -> Paths:
    """Solve the paths (t, L) of all queries, whatever runs they miss, and return them in the order of the queries.

    Without `penalties` every query's path starts at its own lambda_max on these runs.
    """
    parts, order = [], []
    for problem in statistics.quadratics(settings.dtype, settings.standardize):
        chosen = problem.queries
        warm = None if starts is None else [starts[q] for q in chosen]
        steps = problem.largest_penalty()[:, None] * settings.grid() if penalties is None else penalties[chosen]
        parts.append(solve_paths(problem, steps, settings, held.take(chosen), warm, patience))
        order.append(chosen)
    back = np.argsort(np.concatenate(order))
    columns = [column for part in parts for column in part.columns]
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])[back]
        for name in ("penalties", "errors", "spreads", "gaps", "best", "predictions")
    }
    return Paths(columns=[columns[k] for k in back], **arrays)


def choose(paths: list[Paths], settings: Settings) -> NDArray[np.int64]:
    """Return the chosen position on the path of every query, (t,), from the folds' held-out errors."""
    errors = np.mean([fold.errors for fold in paths], axis=0)
    best: NDArray[np.int64] = np.nanargmin(errors, axis=1)
    if settings.rule == "minimum":
        return best
    rows = np.arange(len(best))
    deviation = (
        paths[0].spreads if len(paths) == 1 else np.std([p.errors for p in paths], axis=0, ddof=1) / np.sqrt(len(paths))
    )
    limit = errors[rows, best] + deviation[rows, best]
    first: NDArray[np.int64] = np.argmax(errors <= limit[:, None], axis=1)
    return first


def stopped_early(paths: list[Paths], patience: int | None) -> NDArray[np.int64]:
    """Return the queries whose folds stopped too early, (k,), to be sure that their common minimum is one."""
    errors = np.mean([fold.errors for fold in paths], axis=0)
    reached = (~np.isnan(errors)).sum(axis=1)
    unsure = (reached < errors.shape[1]) & (reached - 1 - np.nanargmin(errors, axis=1) < (patience or 0))
    return np.flatnonzero(unsure)


def select(collected: Collected, settings: Settings) -> tuple[Floats, NDArray[np.int64], list[Paths]]:
    """Return the penalties (t, L), the chosen position of every query (t,), and every fold's solution there.

    A path stops when its held-out error has turned; with folds, whose errors turn at different places, a query whose mean error
    could still fall is walked again with twice the patience, and so on.
    """
    folds = range(len(collected.parts))
    penalties = penalty_grid(collected.everything(), settings) if len(folds) > 1 else None
    paths = [walk_paths(collected.fitting(f), penalties, collected.held[f], settings, settings.patience) for f in folds]
    penalties = paths[0].penalties
    patience, again = settings.patience, stopped_early(paths, settings.patience)
    while len(folds) > 1 and patience is not None and len(again):
        patience *= 2
        for f in folds:
            statistics, held = collected.fitting(f).take(again), collected.held[f].take(again)
            further = walk_paths(statistics, penalties[again], held, settings, patience)
            paths[f] = _replaced(paths[f], again, further)
        again = stopped_early(paths, settings.patience)
    chosen = choose(paths, settings)
    return penalties, chosen, [_at(chosen, f, collected, paths[f], settings) for f in folds]


def _at(chosen: NDArray[np.int64], fold: int, collected: Collected, paths: Paths, settings: Settings) -> Paths:
    """Return the paths with columns and predictions of the chosen lambda where that is not the fold's own best."""
    other = np.flatnonzero(paths.best != chosen)
    if not len(other):
        return paths
    penalties = paths.penalties[other, chosen[other]][:, None]
    starts = [paths.columns[q] for q in other]
    held = collected.held[fold].take(other)
    solved = walk_paths(collected.fitting(fold).take(other), penalties, held, settings, None, starts)
    columns, predictions = list(paths.columns), paths.predictions.copy()
    predictions[other] = solved.predictions
    for q, column in zip(other, solved.columns, strict=True):
        columns[q] = column
    return replace(paths, best=chosen, columns=columns, predictions=predictions)


def _replaced(paths: Paths, queries: NDArray[np.int64], other: Paths) -> Paths:
    """Return `paths` with the given queries' results taken from `other`."""
    arrays = {}
    for name in ("errors", "spreads", "gaps", "best", "predictions"):
        arrays[name] = getattr(paths, name).copy()
        arrays[name][queries] = getattr(other, name)
    columns = list(paths.columns)
    for q, column in zip(queries, other.columns, strict=True):
        columns[q] = column
    return replace(paths, columns=columns, **arrays)
