"""Empirical influence: the mean output with an example in the subset minus the mean output without it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence
from estimators.values.utility import utility_of
from workers.errors import DataError

_BLOCK = 1 << 24


class DifferenceInMeans(Estimator):
    """tau[i, q] = E[f_q(S) | i in S] - E[f_q(S) | i not in S] over the runs (Feldman & Zhang 2020, infl of section 2).

    Each subset counts once, by the mean over its seeds. The standard errors are Welch's, over subsets; they are NaN
    for an example that is in (or out of) a single subset. Unbiased for an additive f when examples are included
    independently; with subsets of one fixed size every effect is relative to the mean effect of the other examples.

    Raises DataError if an example is in all or in none of the subsets, since it has nothing to be compared with.

    >>> from itertools import product
    >>> import numpy as np
    >>> from estimators import Evidence, Runs
    >>> from estimators.retraining_based.difference_in_means import DifferenceInMeans
    >>> masks = np.array(list(product([False, True], repeat=4)))  # all subsets of 4 examples
    >>> outputs = masks @ [[2.0], [-1.0], [0.5], [1.0]]  # one query, to which each example adds its effect
    >>> rows = np.arange(16)
    >>> runs = Runs("fit", "bernoulli", "margin", masks, outputs, subsets=rows, repeats=0 * rows)
    >>> DifferenceInMeans().attribute(Evidence(4, 1, "margin", {"fit": runs})).values[:, 0].tolist()
    [2.0, -1.0, 0.5, 1.0]
    """

    name: ClassVar[str] = "difference_in_means"
    needs: ClassVar[frozenset[Need]] = frozenset({"subsets"})
    naming_designs: ClassVar[tuple[str, ...]] = ("design",)
    in_units: ClassVar[bool] = True

    design: str | None = Field(None, description="the design of random subsets to use, when there are several")

    def attribute(self, evidence: Evidence) -> Attribution:
        """Return tau (n, t), in the units of the measure, with its standard errors."""
        runs = evidence.of_kind("subsets", "bernoulli", "explicit", design=self.design)
        masks, outputs = runs.means()
        inside = masks.sum(axis=0)
        outside = len(masks) - inside
        refuse_one_sided(inside, outside, runs.design)
        values, errors = difference_in_means(masks, outputs)
        utility, utility_errors = difference_in_means(masks, utility_of(outputs))
        return Attribution(
            values,
            standard_error=errors,
            utility=utility[:, 0],
            utility_standard_error=utility_errors[:, 0],
            degrees_of_freedom=degrees_of_freedom(inside, outside),
            fitted_on=(runs.design,),
            models=len(runs.outputs),
            details={
                "subsets": len(masks),
                "fewest_inclusions": int(inside.min()),
                "fewest_exclusions": int(outside.min()),
                "without_standard_error": int((np.minimum(inside, outside) < 2).sum()),
            },
        )


def difference_in_means(
    masks: NDArray[np.bool_], outputs: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the differences (n, t) and their standard errors (n, t) for masks (s, n) and outputs (s, t).

    One matrix product of the masks with [outputs, outputs^2], computed in float64 for a block of examples at a time.
    Every example must be in at least one subset and out of at least one.
    """
    (s, n), t = masks.shape, outputs.shape[1]
    centred = outputs - outputs.mean(axis=0)
    moments = np.hstack([centred, centred**2])
    total = moments.sum(axis=0)
    values, errors = np.empty((n, t), np.float32), np.empty((n, t), np.float32)
    step = max(1, _BLOCK // max(s, 2 * t))
    for start in range(0, n, step):
        block = slice(start, start + step)
        chosen = masks[:, block].T.astype(np.float64)
        inside = chosen.sum(axis=1, keepdims=True)
        sums = chosen @ moments
        mean_in, variance_in = _mean_and_variance(sums, inside)
        mean_out, variance_out = _mean_and_variance(total - sums, s - inside)
        values[block] = mean_in - mean_out
        errors[block] = np.sqrt(variance_in / inside + variance_out / (s - inside))
    return values, errors


def _mean_and_variance(
    sums: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and unbiased variances (b, t) from sums of values and squares (b, 2t); NaN variance of one value."""
    first, second = np.split(sums, 2, axis=1)
    mean = first / counts
    # Round-off can leave a variance of zero slightly negative.
    scatter = np.maximum(second - mean * first, 0)
    return mean, scatter / np.where(counts > 1, counts - 1, np.nan)


def degrees_of_freedom(inside: NDArray[np.int64], outside: NDArray[np.int64]) -> float:
    """Return those of the smallest group of subsets that a difference has: at most Welch's, so never too many."""
    return float(max(1, min(inside.min(), outside.min()) - 1))


def refuse_one_sided(inside: NDArray[np.int64], outside: NDArray[np.int64], design: str) -> None:
    """Raise DataError if an example is in none of the subsets, or in all, given in how many it is in and out (n,)."""
    never, always = int((inside == 0).sum()), int((outside == 0).sum())
    if never or always:
        raise DataError(
            f"design {design!r}: of {len(inside)} examples {never} are in none of its subsets and {always} in all,"
            " expected each in some and not in others; train more subsets"
        )
