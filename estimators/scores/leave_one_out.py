"""Agreement with leaving examples out one at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.scores.basis import Basis, constant
from estimators.scores.bootstrap import Resamples, correlation_estimate
from estimators.scores.external import judge_array
from estimators.scores.result import Score
from estimators.scores.spearman import resampled_spearman
from workers.errors import DataError


def loo_correlation(
    tau: ArrayLike,
    effects: NDArray[np.floating],
    examples: NDArray[np.int64],
    *,
    n: int,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    seeds: int = 0,
    basis: Basis | None = None,
) -> Score:
    """Return how `tau` (n, t) ranks examples by their measured leave-one-out effects.

    `effects` (k, t) are the effects of including `examples` (k,), f(full) - f(full without i), as
    `estimators.retraining_based.leave_one_out.measured_effects` gives them. Per query, Spearman's correlation over
    the k examples; the score is the mean over queries, with a bootstrap over examples and queries.
    `details["pearson"]` is the mean over queries of Pearson's correlation. A constant column has correlation 0.
    `seeds`, and what `basis` says of the runs (`Basis.of`), are only carried into the score.

    Raises DataError for shapes that do not fit, values that are not finite, or examples that are too few (< 2),
    repeated or out of range.

    >>> import numpy as np
    >>> from estimators.scores import loo_correlation
    >>> tau = np.array([[3.0], [-1.0], [0.2], [0.1], [0.0]])  # n = 5 examples, one query
    >>> effects = np.array([[2.0], [-1.0], [0.5], [1.0]])  # measured for the first four of them
    >>> score = loo_correlation(tau, effects, np.arange(4), n=5)
    >>> round(score.value, 2), score.subsets
    (0.8, 4)
    """
    _check(effects, examples, n)
    t = effects.shape[1]
    values = judge_array(tau, n, t)
    ours = np.asarray(values[examples], dtype=np.float64)
    measured = effects.astype(np.float64)
    drawn = Resamples.draw(len(examples), t, resamples, seed)
    correlations = resampled_spearman(ours, measured, drawn.rows)
    means = drawn.means(correlations)
    return Score(
        "loo",
        *correlation_estimate(means, level),
        ceiling=np.nan,
        per_query=correlations[0],
        queries=t,
        subsets=len(examples),
        seeds=seeds,
        resampled=means,
        basis=replace(
            basis or Basis(alpha=(n - 1) / n),
            queries_left_out=0,
            constant_predictions=constant(ours),
            constant_outputs=constant(measured),
        ),
        details={"pearson": float(pearson(ours, measured).mean())},
    )


def pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (t,): Pearson's correlation of the columns of `x` and `y`, both (k, t); 0 where a column is constant."""
    constant = (np.ptp(x, axis=0) == 0) | (np.ptp(y, axis=0) == 0)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
    scale = np.where(constant, 1.0, scale)
    return np.where(constant, 0.0, np.einsum("kt,kt->t", x, y) / scale)


def _check(effects: NDArray[np.floating], examples: NDArray[np.int64], n: int) -> None:
    k = len(examples)
    if effects.ndim != 2 or len(effects) != k:
        raise DataError(f"the leave-one-out effects have shape {effects.shape}, expected ({k}, t) for {k} examples")
    if k < 2:
        raise DataError(f"the leave-one-out correlation needs at least 2 examples, found {k}")
    if len(np.unique(examples)) != k or examples.min() < 0 or examples.max() >= n:
        raise DataError(f"the left-out examples must be different and in 0..{n - 1}")
    if not np.isfinite(effects).all():
        raise DataError(
            f"{int((~np.isfinite(effects)).sum())} of the {effects.size} leave-one-out effects are not finite"
        )
