"""The score of predictions by their ranks: Spearman's correlation with what was measured, its interval, ceiling and share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from estimators.scores.bootstrap import Resamples, correlation_estimate
from estimators.scores.ceiling import Ceiling
from estimators.scores.jackknife import Jackknife
from estimators.scores.predictions import Predictions
from estimators.scores.result import UNKNOWN, Estimate, Score
from estimators.scores.share import share_of
from estimators.scores.spearman import resampled_spearman


def rank_score(
    metric: str,
    made: Predictions,
    subsets: NDArray[np.int64],
    ceiling: Ceiling,
    *,
    seeds: int,
    runs: int,
    resamples: int,
    seed: int,
    level: float,
) -> Score:
    """Return the mean over queries of the rank correlation of predictions and measurements, over `subsets` (s,), ascending.

    The interval is a bootstrap over subsets and queries, with everything ranked anew in each resample. A query whose prediction
    or measurement is the same for all subsets has correlation 0, since nothing is ranked. `seeds` a subset and `runs` in all are
    what is measured on.
    """
    s, t = made.measured.shape
    drawn = Resamples.draw(s, t, resamples, seed)
    correlations = resampled_spearman(made.predicted, made.measured, drawn.rows)
    means = drawn.means(correlations)
    estimate = correlation_estimate(means, level)
    return Score(
        metric,
        *estimate,
        ceiling=ceiling.value,
        ceiling_low=ceiling.low,
        ceiling_high=ceiling.high,
        resampled=means,
        share=_share(estimate, ceiling, made, subsets),
        per_query=correlations[0],
        queries=t,
        subsets=s,
        seeds=seeds,
        basis=made.basis,
        details={"runs": runs},
    )


def _share(score: Estimate, ceiling: Ceiling, made: Predictions, subsets: NDArray[np.int64]) -> Estimate:
    """Return the share of the ceiling; both errors are correlated by leaving the same subsets out of both."""
    if ceiling.reason:
        return UNKNOWN
    compared = np.searchsorted(subsets, ceiling.compared)
    jackknife = Jackknife.of(ceiling.subsets)
    left_out = resampled_spearman(made.predicted[compared], made.measured[compared], jackknife.counts)
    return share_of(score, ceiling.estimate, jackknife.correlation(left_out, ceiling.left_out))
