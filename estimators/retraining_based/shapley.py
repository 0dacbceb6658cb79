"""Data Shapley and Beta-Shapley: what an example adds to the ones before it, averaged over random orders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence, Runs
from estimators.values.enumeration import Enumeration
from estimators.values.permutations import Ends, PermutationRuns, permutation_values, permutations_of, units_of
from estimators.values.semivalue_weights import beta_sizes, shapley_sizes
from estimators.values.utility import utility_of, utility_runs
from workers.errors import ConfigError, DataError


class Shapley(Estimator):
    """tau[i, q] = mean over orders of f_q(those before i, and i) - f_q(those before i) (Ghorbani & Zou 2019).

    From runs of prefixes of random permutations, with standard errors over permutations (over pairs of them, when
    antithetic). From a design of kind `explicit` with all subsets of at most 12 examples: exactly, with standard errors
    from the seeds alone.

    The sum over the examples is f_q(all) - f_q(nothing). The latter comes from runs of the empty prefix, else from
    `empty`, else from the task. Prefixes that truncation left out count as the full set, and the little that then
    remains to be gained is shared by the examples that were to come, so that the sum stays right (the paper gives
    them nothing). Examples that one step added together share its gain equally: a step above 1 keeps sum and symmetry, but pulls
    values towards the mean of their neighbours, which no interval tells (`details["largest_step"]`).

    >>> from itertools import permutations
    >>> import numpy as np
    >>> from estimators import Evidence, Runs
    >>> from estimators.retraining_based.shapley import Shapley
    >>> masks = np.array([np.isin(range(3), order[:size]) for order in permutations(range(3)) for size in (1, 2, 3)])
    >>> pairs = (masks[:, [0]] & (masks[:, [1]] | masks[:, [2]])).astype(float)  # a left glove, 0, and a right one
    >>> rows = np.arange(18)
    >>> runs = Runs("orders", "permutations", "pairs", masks, pairs, rows, 0 * rows, permutations=rows // 3)
    >>> made = Shapley(empty=0.0).attribute(Evidence(3, 1, "pairs", {"orders": runs}))
    >>> made.values[:, 0].astype(float).round(2).tolist()
    [0.67, 0.17, 0.17]
    """

    name: ClassVar[str] = "shapley"
    needs: ClassVar[frozenset[Need]] = frozenset({"permutations"})
    naming_designs: ClassVar[tuple[str, ...]] = ("design", "full")
    in_units: ClassVar[bool] = True

    design: str | None = Field(None, description="the design of permutations to use, when there are several")
    full: str | None = Field(
        None, description="the full design that closes truncated permutations; null takes all there are"
    )
    empty: float | None = Field(
        None,
        allow_inf_nan=False,
        description="the output of a model of no data, for every query, where no run gives it",
    )

    @property
    def empty_output(self) -> float | None:
        """The option `empty`."""
        return self.empty

    def check(self, evidence: Evidence) -> None:
        """Refuse to begin without knowing what a model of no data outputs."""
        if empty_outputs(self.empty, evidence) is None:
            raise ConfigError(
                f"{self.name}: the output of a model of no data is not known: set `empty` to a number, "
                "or give the task a measure_empty()"
            )

    def sizes(self, n: int) -> NDArray[np.float64]:
        """Return the weights (n,) of the sizes that an example is added to."""
        return shapley_sizes(n)

    def attribute(self, evidence: Evidence) -> Attribution:
        """Return tau (n, t) and the values of the utility (n,), in the units of the measure, with standard errors."""
        runs = evidence.of_kind("permutations", "explicit", design=self.design)
        empty = empty_outputs(self.empty, evidence)
        if runs.kind == "explicit":
            return enumerated(runs, empty, self.sizes(evidence.n))
        full = _full_runs(evidence, self.full)
        ends = Ends(empty, *_full_outputs(runs, full))
        units = units_of(permutations_of(runs, ends), runs.antithetic)
        sizes = self.sizes(evidence.n)
        values, errors = permutation_values(units, sizes, ends.full_error)
        utility, utility_errors = _of_utility(units, sizes, runs, full)
        known = len(units) > 1
        closing = any(permutation.truncated for unit in units for permutation in unit)
        return Attribution(
            values.astype(np.float32),
            standard_error=errors.astype(np.float32) if known else None,
            utility=utility.astype(np.float32),
            utility_standard_error=utility_errors.astype(np.float32) if known else None,
            degrees_of_freedom=float(max(1, len(units) - 1)),
            fitted_on=(runs.design, *(one.design for one in full if closing)),
            models=len(runs.outputs) + (sum(len(one.outputs) for one in full) if closing else 0),
            details=_details(units, runs, evidence),
        )


class BetaShapley(Shapley):
    """Shapley's mean with weights on how many came before: n C(n-1, s) B(s + beta, n-1-s + alpha) / B(beta, alpha).

    Kwon & Zou 2022, section 3. The weights have mean 1; alpha = beta = 1 is Shapley; (16, 1) looks at small
    subsets, where the noise of training is small against what one example adds, and the values no longer sum to
    f_q(all) - f_q(nothing).

    >>> from itertools import product
    >>> import numpy as np
    >>> from estimators import Evidence, Runs
    >>> from estimators.retraining_based.shapley import BetaShapley
    >>> masks = np.array(list(product([False, True], repeat=3)))
    >>> pairs = (masks[:, [0]] & (masks[:, [1]] | masks[:, [2]])).astype(float)  # a left glove, 0, and a right one
    >>> runs = Runs("all", "explicit", "pairs", masks, pairs, subsets=np.arange(8), repeats=np.zeros(8, int))
    >>> evidence = Evidence(3, 1, "pairs", {"all": runs})
    >>> [BetaShapley(alpha=a).attribute(evidence).values[0, 0].astype(float).round(2).tolist() for a in (1, 16)]
    [0.67, 0.11]
    """

    name: ClassVar[str] = "beta_shapley"

    alpha: float = Field(16.0, gt=0, allow_inf_nan=False, description="larger: more weight on small subsets")
    beta: float = Field(1.0, gt=0, allow_inf_nan=False, description="larger: more weight on large subsets")

    def sizes(self, n: int) -> NDArray[np.float64]:
        """Return the beta-binomial weights of sizes."""
        return beta_sizes(n, self.alpha, self.beta)


def empty_outputs(given: float | None, evidence: Evidence) -> NDArray[np.float64] | None:
    """Return the outputs (t,) of a model of no data: `given` for all queries, else the evidence's, else None."""
    if given is not None:
        return np.full(evidence.t, given)
    return None if evidence.empty is None else evidence.empty.astype(np.float64)


def enumerated(runs: Runs, empty: NDArray[np.float64] | None, sizes: NDArray[np.float64]) -> Attribution:
    """Return the exact semivalues of runs of all subsets. Raises DataError if some are missing, or n > 12."""
    every = Enumeration.of(runs, empty)
    values, errors = every.semivalue(sizes)
    of_utility = Enumeration.of(utility_runs(runs), None if empty is None else empty.mean(keepdims=True))
    utility, utility_errors = of_utility.semivalue(sizes)
    return Attribution(
        values.astype(np.float32),
        standard_error=None if errors is None else errors.astype(np.float32),
        utility=utility[:, 0].astype(np.float32),
        utility_standard_error=None if utility_errors is None else utility_errors[:, 0].astype(np.float32),
        degrees_of_freedom=every.degrees_of_freedom,
        fitted_on=(runs.design,),
        models=len(runs.outputs),
        details={"exact": True, "subsets": len(every.outputs)},
    )


def _of_utility(
    units: list[list[PermutationRuns]], sizes: NDArray[np.float64], runs: Runs, full: list[Runs]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    averaged = [
        [replace(permutation, outputs=utility_of(permutation.outputs)) for permutation in unit] for unit in units
    ]
    _, full_error = _full_outputs(utility_runs(runs), [utility_runs(one) for one in full])
    values, errors = permutation_values(averaged, sizes, full_error)
    return values[:, 0], errors[:, 0]


def _full_runs(evidence: Evidence, design: str | None) -> list[Runs]:
    if design is not None:
        return [evidence.of_kind("full", design=design)]
    found = [runs for runs in evidence.runs.values() if runs.kind == "full"]
    wrong = [runs.design for runs in found if not runs.masks.all()]
    if wrong:
        raise DataError(f"design {wrong[0]!r}: some of its runs do not see all examples, expected full runs")
    return found


def _full_outputs(runs: Runs, full: list[Runs]) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return the mean output (t,) of the full set and its standard error: of full runs, else of whole permutations."""
    rows = [one.outputs for one in full] or [runs.outputs[runs.masks.all(axis=1)]]
    outputs = np.concatenate(rows).astype(np.float64)
    if not len(outputs):
        return None, None
    error = outputs.std(axis=0, ddof=1) / np.sqrt(len(outputs)) if len(outputs) > 1 else None
    return outputs.mean(axis=0), error


def _details(units: list[list[PermutationRuns]], runs: Runs, evidence: Evidence) -> dict[str, Any]:
    permutations = [permutation for unit in units for permutation in unit]
    steps = [np.diff(permutation.bounds)[: -1 if permutation.truncated else None] for permutation in permutations]
    return {
        "permutations": len(permutations),
        "independent": len(units),
        "truncated": sum(permutation.truncated for permutation in permutations),
        "largest_step": int(max((step.max() for step in steps if len(step)), default=0)),
        "evaluations_per_permutation": len(runs.outputs) / len(permutations),
        "unfinished_rows": int((np.asarray(runs.permutations) < 0).sum()),
        "examples": evidence.n,
    }
