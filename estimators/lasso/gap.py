"""The certificate: duality gaps in float64, from the exact integer Gram matrix and not from what the solver used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from estimators.lasso.descent import duality_gap, subtract_rows
from estimators.lasso.solution import Column
from estimators.lasso.statistics import Floats, Quadratic, Statistics
from estimators.lasso.threads import spread


def relative_gaps(
    statistics: Statistics,
    problem: Quadratic,
    columns: list[Column],
    penalties: Floats,
    ridge: float,
    threads: int | None = None,
) -> Floats:
    """Return the duality gap of every query of a problem relative to its objective at w = 0, (k,); 0 for a constant output.

    `columns` and `penalties` (k,) are in the problem's units.
    """
    absent = statistics.missing_rows(int(problem.queries[0])).astype(np.float64)

    def one(k: int) -> float:
        index, values = columns[k].index, columns[k].values.astype(np.float64)
        if problem.power[k] == 0:
            return 0.0
        w = problem.scales[index] * values
        product = np.zeros(statistics.n)
        subtract_rows(statistics.gram, index, -w, len(index), product)
        product -= absent.T @ (absent[:, index] @ w)
        centred = product / problem.rows - problem.mask_means * (problem.mask_means[index] @ w)
        residual: NDArray[np.float64] = problem.cross[k] - problem.scales * centred
        residual[index] -= ridge * values
        largest = float(np.abs(residual).max())
        inner = problem.cross[k][index], residual[index], values, len(index)
        gap: float = duality_gap(problem.power[k], *inner, float(penalties[k]), largest)
        return gap / (0.5 * float(problem.power[k]))

    return np.array(spread(one, range(len(columns)), threads))
