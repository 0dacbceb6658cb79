"""All queries' paths for one quadratic problem, by coordinate descent (CPU) or lock-step FISTA (any torch device)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from estimators.lasso.collect import Held
from estimators.lasso.descent import Descent, HeldOut, Target, Walked, Warm, walk
from estimators.lasso.settings import Settings
from estimators.lasso.solution import NOTHING, Column, Paths, no_held
from estimators.lasso.statistics import Floats, Quadratic
from estimators.lasso.threads import spread


def solve_paths(
    problem: Quadratic,
    penalties: Floats,
    settings: Settings,
    held: Held | None = None,
    starts: Sequence[Column] | None = None,
    patience: int | None = None,
) -> Paths:
    """Solve all queries of a problem along their penalties (k, L), descending.

    `held` has these k queries only; `starts` are warm starts; a path stops after `patience` lambdas without a
    lower held-out error.
    """
    held = held or no_held(problem, settings)
    starts = starts or [NOTHING] * len(problem.queries)
    if settings.by_descent:
        return _descend(problem, penalties, settings, held, starts, patience)
    from estimators.lasso.fista import lockstep

    return lockstep(problem, penalties, settings, held, starts, patience)


def _descend(
    problem: Quadratic,
    penalties: Floats,
    settings: Settings,
    held: Held,
    starts: Sequence[Column],
    patience: int | None,
) -> Paths:
    dtype = settings.dtype
    cross, steps = problem.cross.astype(dtype), penalties.astype(dtype)
    means, scales = problem.mask_means.astype(dtype), problem.scales.astype(dtype)
    targets = (held.outputs - problem.output_means[:, None]).astype(dtype)

    def walked(k: int) -> Walked:
        start = starts[k]
        return walk(
            Target(problem.gram, cross[k], problem.power[k], settings.ridge),
            Descent(steps[k], settings.tolerance, settings.max_sweeps, patience or penalties.shape[1]),
            Warm(start.index, start.values.astype(dtype)),
            HeldOut(held.masks, means, scales, targets[k]),
        )

    found = spread(walked, range(len(problem.queries)), settings.threads)
    halves = np.where(problem.power > 0, 0.5 * problem.power, 1.0)
    return Paths(
        penalties,
        np.stack([one.errors for one in found]),
        np.stack([one.spreads for one in found]),
        np.stack([one.gaps for one in found]) / halves[:, None],
        np.array([one.best for one in found]),
        [Column(one.columns, one.values) for one in found],
        np.stack([one.predictions for one in found]) + problem.output_means[:, None].astype(dtype),
    )
