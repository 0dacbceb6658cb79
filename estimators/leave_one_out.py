"""Leave-one-out by retraining: the output of the full set minus the output without the example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Attribution, Estimator, Evidence, Need, Runs
from workers.errors import DataError


class LeaveOneOut(Estimator):
    """tau[i, q] = mean over seeds of f_q(all) - mean over seeds of f_q(all without i).

    Standard errors need 2 seeds: from the paired differences for an example whose runs have exactly the repeats of
    the full runs, from both variances (Welch) otherwise. They are NaN for examples with fewer, and not given if no
    example has them. Raises DataError for examples that no run left out, unless `missing` is `zero`; `details` then
    counts them.
    """

    name: ClassVar[str] = "leave_one_out"
    needs: ClassVar[frozenset[Need]] = frozenset({"leave_one_out", "full"})

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
        n, t = left_out.masks.shape[1], left_out.outputs.shape[1]
        missing = n - len(found.examples)
        if missing and self.missing == "error":
            raise DataError(
                f"design {left_out.design!r}: {missing} of {n} examples are left out by no run;"
                " train those, or set `missing: zero` to give them an effect of zero"
            )
        values = np.zeros((n, t), dtype=np.float32)
        values[found.examples] = found.values
        utility = np.zeros(n, dtype=np.float32)
        utility[found.examples] = found.utility
        errors = utility_errors = None
        known = np.isfinite(found.standard_error).all(axis=1)
        if known.any():
            errors, utility_errors = (np.full(shape, np.nan, dtype=np.float32) for shape in ((n, t), (n,)))
            errors[found.examples] = found.standard_error
            utility_errors[found.examples] = found.utility_standard_error
        return Attribution(
            values,
            standard_error=errors,
            utility=utility,
            utility_standard_error=utility_errors,
            degrees_of_freedom=found.degrees_of_freedom,
            fitted_on=(left_out.design, full.design),
            models=len(left_out.outputs) + len(full.outputs),
            details={
                "examples_left_out": len(found.examples),
                "examples_set_to_zero": missing,
                "paired": int(found.paired.sum()),
                "without_standard_error": n - int(known.sum()),
            },
        )


@dataclass(frozen=True)
class Effects:
    """Measured effects of including k examples."""

    examples: NDArray[np.int64]
    """(k,) the examples, ascending."""
    values: NDArray[np.float64]
    """(k, t)."""
    standard_error: NDArray[np.float64]
    """(k, t); NaN where there are fewer than 2 seeds."""
    paired: NDArray[np.bool_]
    """(k,) whether the standard error is that of paired differences."""


def measured_effects(left_out: Runs, full: Runs) -> Effects:
    """Return the effect of including each example that a run left out.

    Raises DataError if a run of `left_out` does not leave out exactly one example, or one of `full` any.
    """
    example = _left_out_example(left_out)
    if not full.masks.all():
        raise DataError(f"design {full.design!r}: some of its runs do not see all examples, expected full runs")
    if not len(full.outputs) or not len(left_out.outputs):
        raise DataError(f"designs {full.design!r} and {left_out.design!r} need finished runs, one of them has none")
    whole, without = full.outputs.astype(np.float64), left_out.outputs.astype(np.float64)
    groups = _Groups.of(example)
    mean, error = groups.mean_and_error(without)
    own = _Groups.of(np.zeros(len(whole), dtype=np.int64))
    whole_mean, whole_error = own.mean_and_error(whole)
    paired, partner = _pairing(left_out.repeats, full.repeats, groups)
    _, paired_error = groups.mean_and_error(whole[partner] - without)
    standard_error = np.where(paired[:, None], paired_error, np.hypot(error, whole_error))
    return Effects(groups.keys, whole_mean - mean, standard_error, paired)


def _left_out_example(runs: Runs) -> NDArray[np.int64]:
    """Return (m,) the one example that each run did not see."""
    missing = (~runs.masks).sum(axis=1)
    wrong = int((missing != 1).sum())
    if wrong:
        raise DataError(f"design {runs.design!r}: {wrong} of {len(missing)} runs do not leave out exactly one example")
    found: NDArray[np.int64] = runs.masks.argmin(axis=1)
    return found


@dataclass(frozen=True)
class _Groups:
    """Rows grouped by a key."""

    keys: NDArray[np.int64]
    """(k,) the different keys, ascending."""
    inverse: NDArray[np.int64]
    """(m,) the group of each row."""
    counts: NDArray[np.int64]
    """(k,) rows of each group."""

    @classmethod
    def of(cls, key: NDArray[np.int64]) -> _Groups:
        return cls(*np.unique(key, return_inverse=True, return_counts=True))

    def mean(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (k, t) means of (m, t) rows."""
        order = np.argsort(self.inverse, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        return np.add.reduceat(rows[order], starts, axis=0) / self.counts[:, None]

    def mean_and_error(self, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the means (k, t) and their standard errors, NaN for groups of one."""
        mean = self.mean(rows)
        square = self.mean((rows - mean[self.inverse]) ** 2)
        return mean, np.sqrt(square / np.where(self.counts > 1, self.counts - 1, np.nan)[:, None])


def _pairing(
    repeats: NDArray[np.int64], full: NDArray[np.int64], groups: _Groups
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which groups have exactly the full runs' repeats (k,), and each run's full run of the same repeat (m,).

    Runs without such a partner point at an arbitrary one; their group is then not paired.
    """
    order = np.argsort(full)
    place = np.minimum(np.searchsorted(full, repeats, sorter=order), len(full) - 1)
    partner = order[place]
    matched = np.bincount(groups.inverse, full[partner] == repeats)
    pairs = np.unique(np.stack([groups.inverse, repeats]), axis=1)[0]
    distinct = np.bincount(pairs, minlength=len(groups.keys))
    each_once = len(np.unique(full)) == len(full)
    paired = (matched == len(full)) & (groups.counts == len(full)) & (distinct == len(full)) & each_once
    return paired, partner
