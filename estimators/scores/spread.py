"""The spread's linear datamodeling score: does the attribution rank subsets by how much retraining varies on them?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.evidence import Runs
from estimators.scores.predictions import Predictions
from estimators.scores.rank_score import rank_score
from estimators.scores.result import Score
from estimators.scores.seeds import complete_block, seeds_per_subset
from estimators.scores.spread_ceiling import spread_ceiling
from workers.errors import DataError


def spread_of(runs: Runs) -> Runs:
    """Return one row a subset, whose output is the standard deviation over the subset's seeds (ddof = 1), float32.

    Of all subsets the same number of seeds is taken, that of the largest complete block (subsets x seeds), since a deviation
    over few is smaller than one over many as a rule: subsets with fewer are left out. An estimator that takes runs of subsets
    takes these, and attributes the spread. Raises DataError without 2 subsets of 2 seeds.

    >>> import numpy as np
    >>> from estimators import Runs
    >>> from estimators.scores import spread_of
    >>> masks = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1]], dtype=bool)
    >>> outputs = np.array([[1.0], [3.0], [5.0], [5.0], [9.0]], dtype=np.float32)
    >>> runs = Runs("fit", "subsets", "margin", masks, outputs, np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0]))
    >>> spread = spread_of(runs)
    >>> spread.subsets.tolist(), spread.outputs.round(3).tolist()
    ([0, 1], [[1.4140000343322754], [0.0]])
    """
    block = complete_block(runs)
    seeds, s, _ = block.outputs.shape
    if seeds < 2 or s < 2:
        raise DataError(
            f"a spread over seeds needs 2 subsets with 2 seeds each, {runs.design!r} has {s if seeds > 1 else 0}"
        )
    return Runs(
        runs.design,
        runs.kind,
        runs.measure,
        block.masks,
        block.outputs.std(axis=0, ddof=1).astype(np.float32),
        block.subsets,
        np.zeros(s, dtype=np.int64),
        order=runs.order,
    )


def spread_lds(
    tau: ArrayLike,
    runs: Runs,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    fitted_masks: NDArray[np.bool_] | None = None,
    planned: int | None = None,
) -> Score:
    """Return how well `tau` (n, t) predicts the change of the outputs' spread over seeds, on held-out `runs`.

    Per query, Spearman's correlation over subsets between the standard deviation over the subset's seeds and `masks @ tau`; the
    score is the mean over queries: the LDS with another target, one of those by which training attribution is distributional
    (Mlodozeniec et al. 2025, arXiv 2506.12965). tau[i, q] is judged as by how much including i raises the spread; ranks make
    standard deviation and variance one target. Interval, constants, overlap and the resamples are those of `lds`, the ceiling is
    `spread_ceiling`'s.

    Subsets with fewer seeds than the largest complete block has are left out; `basis` counts them as those with fewer seeds.
    Raises DataError as `lds` does, and without 2 subsets of 2 seeds.

    >>> from itertools import combinations
    >>> import numpy as np
    >>> from estimators import Runs
    >>> from estimators.scores import spread_lds
    >>> masks = np.array([np.isin(range(4), pair) for pair in combinations(range(4), 2)])  # 6 subsets of half the examples
    >>> noisy = np.array([[2.0], [0.1], [0.5], [1.0]])  # how much each example adds to the spread
    >>> outputs = (masks @ noisy)[:, None] * np.array([-1.0, 1.0])[:, None]  # two seeds each, their mean is always 0
    >>> six = np.arange(12) // 2
    >>> runs = Runs("score", "subsets", "margin", masks[six], outputs.reshape(12, 1), six, np.arange(12) % 2)
    >>> round(spread_lds(noisy, runs).value, 2), round(spread_lds(-noisy, runs).value, 2)
    (1.0, -1.0)
    """
    spread = spread_of(runs)
    made = Predictions.of(tau, spread, "the spread's LDS", fitted_masks=fitted_masks)
    ceiling, finished = spread_ceiling(runs, level=level), seeds_per_subset(runs)
    seeds = int(ceiling.seeds)
    basis = replace(
        made.basis,
        subsets_left_out=np.nan if planned is None else planned - len(finished),
        subsets_with_fewer_seeds=int((finished < seeds).sum()),
    )
    return rank_score(
        "spread_lds",
        replace(made, basis=basis),
        spread.subsets,
        ceiling,
        seeds=seeds,
        runs=seeds * len(spread.subsets),
        resamples=resamples,
        seed=seed,
        level=level,
    )
