"""Data Banzhaf: what an example adds to a random half of the others."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence, Runs
from estimators.retraining_based.difference_in_means import degrees_of_freedom, difference_in_means, refuse_one_sided
from estimators.retraining_based.shapley import empty_outputs, enumerated
from estimators.values.semivalue_weights import banzhaf_sizes
from estimators.values.utility import utility_of
from workers.errors import DataError

_FEW = 30
"""Beyond so many examples the empty subset has a probability below 1e-9, and nothing is to be gained from its output."""
_SIGMAS = 5.0


class Banzhaf(Estimator):
    """tau[i, q] = mean over all subsets S of the others of f_q(S + i) - f_q(S) (Wang & Jia 2023, Data Banzhaf).

    - From a `bernoulli` design of probability a half, by maximum sample reuse (MSR): the mean output of
      the subsets with i minus the mean of those without, so that every run serves every example. The design draws no
      empty subset; with at most 30 examples its known output (`empty`, or the task's) is put in with its probability 2**(1-n)
      among the subsets without i.
    - From a `subsets` design of half the examples: *relative* values. Where the size is fixed, an example
      that comes in pushes another out, so the level is lost: (n - 1) / n times the difference of means is what i adds
      minus what the average example adds (exactly so for an additive f), and sums to 0 in expectation.
    - From an `explicit` design with all subsets of at most 12 examples: exactly.

    Standard errors are Welch's, over subsets; with exact enumeration they come from the seeds alone.

    >>> from itertools import product
    >>> import numpy as np
    >>> from estimators import Evidence, Runs
    >>> from estimators.retraining_based.banzhaf import Banzhaf
    >>> masks = np.array(list(product([False, True], repeat=3)))
    >>> pairs = (masks[:, [0]] & (masks[:, [1]] | masks[:, [2]])).astype(float)  # a left glove, 0, and a right one
    >>> runs = Runs("all", "explicit", "pairs", masks, pairs, subsets=np.arange(8), repeats=np.zeros(8, int))
    >>> Banzhaf().attribute(Evidence(3, 1, "pairs", {"all": runs})).values[:, 0].tolist()
    [0.75, 0.25, 0.25]
    """

    name: ClassVar[str] = "banzhaf"
    needs: ClassVar[frozenset[Need]] = frozenset({"subsets"})
    naming_designs: ClassVar[tuple[str, ...]] = ("design",)
    in_units: ClassVar[bool] = True

    design: str | None = Field(None, description="the design of random subsets to use, when there are several")
    empty: float | None = Field(
        None,
        allow_inf_nan=False,
        description="the output of a model of no data, for every query, where no run gives it",
    )

    @property
    def empty_output(self) -> float | None:
        """The option `empty`."""
        return self.empty

    def attribute(self, evidence: Evidence) -> Attribution:
        """Return tau (n, t) and the values of the utility (n,), in the units of the measure, with standard errors."""
        runs = evidence.of_kind("bernoulli", "subsets", "explicit", design=self.design)
        empty = empty_outputs(self.empty, evidence)
        if runs.kind == "explicit":
            return enumerated(runs, empty, banzhaf_sizes(evidence.n))
        relative = runs.kind == "subsets"
        _refuse_other_subsets(runs)
        masks, outputs = runs.means()
        inside = masks.sum(axis=0)
        outside = len(masks) - inside
        refuse_one_sided(inside, outside, runs.design)
        scale = (evidence.n - 1) / evidence.n if relative else 1.0
        absent = not relative and evidence.n <= _FEW and bool(masks.any(axis=1).all())
        added = empty if absent else None
        values, errors = reused(masks, outputs, added)
        utility, utility_errors = reused(
            masks, utility_of(outputs), None if added is None else added.mean(keepdims=True)
        )
        return Attribution(
            (scale * values).astype(np.float32),
            standard_error=(scale * errors).astype(np.float32),
            utility=(scale * utility[:, 0]).astype(np.float32),
            utility_standard_error=(scale * utility_errors[:, 0]).astype(np.float32),
            degrees_of_freedom=degrees_of_freedom(inside, outside),
            fitted_on=(runs.design,),
            models=len(runs.outputs),
            details={
                "estimates": "relative Banzhaf (sums to 0)" if relative else "Banzhaf",
                "subsets": len(masks),
                "fewest_inclusions": int(inside.min()),
                "fewest_exclusions": int(outside.min()),
                "without_empty_subset": absent and empty is None,
            },
        )


def reused(
    masks: NDArray[np.bool_], outputs: NDArray[np.float64], empty: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the differences of means (n, t) and their standard errors, for masks (s, n) and outputs (s, t).

    Given the output of the `empty` subset (t,), which masks do not have, the mean without i becomes
    (1 - p) * mean + p * empty with p = 2**(1 - n).
    """
    difference, error = (part.astype(np.float64) for part in difference_in_means(masks, outputs))
    if empty is None:
        return difference, error
    without = (~masks).T.astype(np.float64)
    mean = without @ (outputs - empty) / without.sum(axis=1, keepdims=True)
    return difference + 0.5 ** (masks.shape[1] - 1) * mean, error


def _refuse_other_subsets(runs: Runs) -> None:
    """Raise DataError unless the subsets are fair coins (bernoulli), or all of half the examples (subsets)."""
    s, n = runs.masks.shape
    if runs.kind == "subsets":
        other = int((~np.isin(runs.masks.sum(axis=1), (n // 2, n - n // 2))).sum())
        if other:
            raise DataError(
                f"design {runs.design!r}: {other} of {s} subsets are not of half the examples, set alpha: 0.5"
            )
        return
    inclusion = float(runs.masks.mean())
    expected = 0.5 if not runs.masks.any(axis=1).all() else 0.5 / (1 - 0.5**n)
    if abs(inclusion - expected) > _SIGMAS * 0.5 / np.sqrt(s * n):
        raise DataError(
            f"design {runs.design!r}: examples are in {inclusion:.3f} of its subsets, Banzhaf values need probability: 0.5"
            " (difference_in_means gives the effect at any other)"
        )
