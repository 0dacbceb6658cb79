"""What a learning curve costs, and of how many queries one is cheap beside the fit it goes with."""

from __future__ import annotations

from dataclasses import replace

from estimators.lasso.cost import FitCost, Machine, fit_cost
from estimators.lasso.learning_curve import FRACTIONS, RESAMPLES
from estimators.lasso.settings import Settings

SHARE, CHEAP_SECONDS = 0.2, 2.0
"""A curve is cheap up to this part of the fit's estimated time, or up to so much."""
RANKING = 40.0
"""Multiply-adds whose time it takes to rank one output and one prediction in one resample."""


def curve_cost(
    m: int, n: int, queries: int, settings: Settings, machine: Machine, nonzeros: int | None = None
) -> FitCost:
    """Return what a learning curve of some queries costs, with all masks of m runs of n examples in memory.

    Every part of the runs is fitted twice, each time by a path and at one lambda more: the held-out halves take turns.
    """
    alone = settings.model_copy(update={"bootstrap": 0, "folds": None})
    held = round(m * settings.holdout)
    parts = [fit_cost(max(2, round(part * (m - held))), n, queries, alone, machine, nonzeros) for part in FRACTIONS]
    whole = parts[-1]
    walks = 2 * sum(part.path_operations for part in parts)
    return replace(
        whole,
        bytes_a_pass=0,
        centred=4 * len(FRACTIONS) * float(n) * n,
        path_operations=walks + RANKING * RESAMPLES * len(FRACTIONS) * held * queries,
        shared_memory=whole.shared_memory + m * n,
        memory_per_query=whole.memory_per_query + 12 * m,
    )


def affordable_queries(m: int, n: int, t: int, nonzeros: int, settings: Settings, machine: Machine) -> int:
    """Return of how many of t queries a curve is cheap beside their fit, which had so many coefficients that are not zero."""
    one, two = (curve_cost(m, n, queries, settings, machine, nonzeros).seconds for queries in (1, 2))
    limit = max(SHARE * fit_cost(m, n, t, settings, machine, nonzeros).seconds, CHEAP_SECONDS)
    return int(min(max((limit - one) / (two - one) + 1, 0), t))
