"""The linear datamodeling score: does the attribution rank subsets as retraining does?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.evidence import Runs
from estimators.scores.ceiling import noise_ceiling
from estimators.scores.predictions import Predictions
from estimators.scores.rank_score import rank_score
from estimators.scores.result import Score
from estimators.scores.seeds import seeds_per_subset


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
    made = Predictions.of(tau, runs, "the LDS", fitted_masks=fitted_masks, planned=planned)
    return rank_score(
        "lds",
        made,
        np.unique(runs.subsets),
        noise_ceiling(runs, level=level),
        seeds=int(seeds_per_subset(runs).max()),
        runs=len(runs.subsets),
        resamples=resamples,
        seed=seed,
        level=level,
    )
