"""Leave-one-out by retraining: the output of the full set minus the output without the example."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence, Runs
from estimators.values.leave_out_effects import Effects, effects_of
from estimators.values.utility import utility_runs
from workers.errors import DataError


class LeaveOneOut(Estimator):
    """tau[i, q] = mean over seeds of f_q(all) - mean over seeds of f_q(all without i).

    Standard errors need 2 seeds: from the paired differences for an example whose runs have exactly the repeats of
    the full runs, from both variances (Welch) otherwise. They are NaN for examples with fewer, and not given if no
    example has them. Raises DataError for examples that no run left out, unless `missing` is `zero`; `details` then
    counts them.

    >>> import numpy as np
    >>> from estimators import Evidence, Runs
    >>> from estimators.retraining_based.leave_one_out import LeaveOneOut
    >>> one, four = np.zeros(1, int), np.arange(4)
    >>> masks = ~np.eye(4, dtype=bool)  # run i lacks example i
    >>> full = Runs("full", "full", "margin", np.ones((1, 4), bool), np.array([[2.5]]), one, one)
    >>> outputs = np.array([[0.5], [3.5], [2.0], [2.5]])  # without example 1 the output is higher
    >>> left_out = Runs("loo", "leave_one_out", "margin", masks, outputs, subsets=four, repeats=0 * four)
    >>> LeaveOneOut().attribute(Evidence(4, 1, "margin", {"full": full, "loo": left_out})).values[:, 0].tolist()
    [2.0, -1.0, 0.5, 0.0]
    """

    name: ClassVar[str] = "leave_one_out"
    needs: ClassVar[frozenset[Need]] = frozenset({"leave_one_out", "full"})
    naming_designs: ClassVar[tuple[str, ...]] = ("design", "full")
    in_units: ClassVar[bool] = True

    design: str | None = Field(None, description="the leave_one_out design to use, when there are several")
    full: str | None = Field(None, description="the full design to compare with, when there are several")
    missing: Literal["error", "zero"] = Field(
        "error", description="what to do with examples that no run left out: refuse, or an effect of zero"
    )

    def attribute(self, evidence: Evidence) -> Attribution:
        """Return tau (n, t), in the units of the measure."""
        left_out = evidence.of_kind("leave_one_out", design=self.design)
        full = evidence.of_kind("full", design=self.full)
        found = measured_effects(left_out, full)
        of_utility = measured_effects(utility_runs(left_out), utility_runs(full))
        n, t = left_out.masks.shape[1], left_out.outputs.shape[1]
        missing = n - len(found.keys)
        if missing and self.missing == "error":
            raise DataError(
                f"design {left_out.design!r}: {missing} of {n} examples are left out by no run;"
                " train those, or set `missing: zero` to give them an effect of zero"
            )
        values = np.zeros((n, t), dtype=np.float32)
        values[found.keys] = found.values
        utility = np.zeros(n, dtype=np.float32)
        utility[found.keys] = of_utility.values[:, 0]
        errors = utility_errors = None
        known = np.isfinite(found.standard_error).all(axis=1)
        if known.any():
            errors, utility_errors = (np.full(shape, np.nan, dtype=np.float32) for shape in ((n, t), (n,)))
            errors[found.keys] = found.standard_error
            utility_errors[found.keys] = of_utility.standard_error[:, 0]
        return Attribution(
            values,
            standard_error=errors,
            utility=utility,
            utility_standard_error=utility_errors,
            degrees_of_freedom=found.degrees_of_freedom,
            fitted_on=(left_out.design, full.design),
            models=len(left_out.outputs) + len(full.outputs),
            details={
                "examples_left_out": len(found.keys),
                "examples_set_to_zero": missing,
                "paired": int(found.paired.sum()),
                "without_standard_error": n - int(known.sum()),
            },
        )


def measured_effects(left_out: Runs, full: Runs) -> Effects:
    """Return the effect of including each example that a run left out.

    Raises DataError if a run of `left_out` does not leave out exactly one example, or one of `full` any.
    """
    return effects_of(_left_out_example(left_out), left_out, full)


def _left_out_example(runs: Runs) -> NDArray[np.int64]:
    """Return (m,) the one example that each run did not see."""
    missing = (~runs.masks).sum(axis=1)
    wrong = int((missing != 1).sum())
    if wrong:
        raise DataError(f"design {runs.design!r}: {wrong} of {len(missing)} runs do not leave out exactly one example")
    found: NDArray[np.int64] = runs.masks.argmin(axis=1)
    return found
