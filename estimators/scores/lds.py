"""The linear datamodeling score: does the attribution rank subsets as retraining does?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.evidence import Runs
from estimators.scores.basis import Basis, constant
from estimators.scores.bootstrap import Resamples, correlation_estimate
from estimators.scores.ceiling import Ceiling, noise_ceiling
from estimators.scores.external import judge_array
from estimators.scores.jackknife import Jackknife
from estimators.scores.overlap import refuse_overlap
from estimators.scores.result import UNKNOWN, Estimate, Score
from estimators.scores.seeds import seeds_per_subset
from estimators.scores.share import share_of
from estimators.scores.spearman import resampled_spearman
from workers.errors import DataError

_BLOCK = 1 << 24
_ROUND_OFF = 1e-12


def lds(
    tau: ArrayLike,
    runs: Runs,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    fitted_masks: NDArray[np.bool_] | None = None,
    planned: int | None = None,
) -> Score:
    """Return the linear datamodeling score of `tau` (n, t) on held-out `runs` (Park et al. 2023, TRAK, definition 2.3).

    Per query, Spearman's correlation (average ranks for ties) over subsets between the output, averaged over the
    subset's seeds, and `masks @ tau`; the score is the mean over queries. The interval is a bootstrap over
    subsets and queries, with everything ranked anew in each resample. A query whose prediction or output is the same
    for all subsets has correlation 0, since nothing is ranked; `basis` counts both kinds. Subsets count once,
    whatever their number of seeds; one without any run is left out and, given `planned`, the number of subsets in the
    design, counted.

    Raises DataError if `tau` is not a finite (n, t) array, if there are fewer than 2 subsets, or if any of them is
    among `fitted_masks` (k, n), the subsets the attribution was fitted on.

    >>> from itertools import combinations
    >>> import numpy as np
    >>> from estimators import Runs
    >>> from estimators.scores import lds
    >>> masks = np.array([np.isin(range(4), pair) for pair in combinations(range(4), 2)])  # 6 subsets of half the examples
    >>> effects = np.array([[2.0], [-1.0], [0.5], [1.0]])
    >>> rows = np.arange(6)
    >>> runs = Runs("score", "subsets", "margin", masks, masks @ effects, subsets=rows, repeats=0 * rows)
    >>> round(lds(effects, runs).value, 2), round(lds(-effects, runs).value, 2)
    (1.0, -1.0)
    >>> round(lds([[2.0], [-1.0], [1.0], [0.5]], runs).value, 2)  # two examples mistaken for each other
    0.89
    """
    n, t = runs.masks.shape[1], runs.outputs.shape[1]
    values = judge_array(tau, n, t)
    if fitted_masks is not None:
        refuse_overlap(fitted_masks, runs.masks)
    masks, outputs = runs.means()
    if len(masks) < 2:
        raise DataError(f"the LDS needs at least 2 subsets, {runs.design!r} has {len(masks)} with a finished run")
    predicted = predict(masks, values)
    drawn = Resamples.draw(len(masks), t, resamples, seed)
    correlations = resampled_spearman(predicted, outputs, drawn.rows)
    means = drawn.means(correlations)
    estimate, ceiling = correlation_estimate(means, level), noise_ceiling(runs, level=level)
    return Score(
        "lds",
        *estimate,
        ceiling=ceiling.value,
        ceiling_low=ceiling.low,
        ceiling_high=ceiling.high,
        resampled=means,
        share=_share(estimate, ceiling, predicted, outputs, np.unique(runs.subsets)),
        per_query=correlations[0],
        queries=t,
        subsets=len(masks),
        seeds=int(seeds_per_subset(runs).max()),
        basis=replace(
            Basis.of(runs, planned),
            queries_left_out=0,
            constant_predictions=constant(predicted),
            constant_outputs=constant(outputs),
        ),
        details={"runs": len(runs.subsets)},
    )


def _share(
    score: Estimate,
    ceiling: Ceiling,
    predicted: NDArray[np.float64],
    outputs: NDArray[np.float64],
    subsets: NDArray[np.int64],
) -> Estimate:
    """Return the share of the ceiling; both errors are correlated by leaving the same subsets out of both."""
    if ceiling.reason:
        return UNKNOWN
    compared = np.searchsorted(subsets, ceiling.compared)
    left_out = resampled_spearman(predicted[compared], outputs[compared], Jackknife.of(ceiling.subsets).counts)
    correlation = Jackknife.of(ceiling.subsets).correlation(left_out, ceiling.left_out)
    return share_of(score, ceiling.estimate, correlation)


def predict(masks: NDArray[np.bool_], tau: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return `masks @ tau` (s, t) in float64, for masks (s, n) and tau (n, t).

    A column that varies by no more than round-off is made exactly constant: its order would be that of rounding errors.
    """
    exact = np.asarray(tau, dtype=np.float64)
    step = max(1, _BLOCK // max(1, masks.shape[1]))
    parts = [masks[start : start + step].astype(np.float64) @ exact for start in range(0, len(masks), step)]
    predicted = np.concatenate(parts)
    flat = np.ptp(predicted, axis=0) <= _ROUND_OFF * np.abs(predicted).max(axis=0)
    predicted[:, flat] = 0
    return predicted
