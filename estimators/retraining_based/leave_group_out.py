"""Leave-group-out (leave-one-class-out): the output of the full set minus the output without a whole group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence, Runs
from estimators.findings import ClassEffects, Findings, GroupEffect
from estimators.values.leave_out_effects import Effects, effects_of
from estimators.values.query_classes import class_runs, in_order, query_classes
from estimators.values.utility import utility_runs
from workers.errors import DataError


class Groups(Estimator):
    """E[g, q] = mean over seeds of f_q(all) - mean over seeds of f_q(all without group g), shared by the group's examples.

    With `share: example`, tau[i, q] = E[g, q] / |g| for i in g, so that a sum of values over a group is its effect; with
    `share: group` every example carries the whole effect of its group. Standard errors as for leave-one-out, scaled alike.
    `findings.groups` tells each group's size and its whole effect on the utility with a standard error, `findings.class_effects`
    its whole effect on the mean over the queries of each class (leave-one-class-out effects, where groups are classes too),
    `findings.group_error` the mean standard error of a whole effect on one query; the effects themselves are `group_effects`.

    >>> import numpy as np
    >>> from estimators import Evidence, Runs
    >>> from estimators.retraining_based.leave_group_out import Groups
    >>> one, two = np.zeros(1, int), np.arange(2)
    >>> full = Runs("full", "full", "margin", np.ones((1, 5), bool), np.array([[4.0]]), one, one)
    >>> masks = np.array([[0, 0, 0, 1, 1], [1, 1, 1, 0, 0]], dtype=bool)  # without the first group, the second
    >>> left_out = Runs("out", "leave_group_out", "margin", masks, np.array([[1.0], [5.0]]), two, 0 * two)
    >>> made = Groups().attribute(Evidence(5, 1, "margin", {"full": full, "out": left_out}))
    >>> made.values[:, 0].tolist()  # effects of 3 and -1, shared
    [1.0, 1.0, 1.0, -0.5, -0.5]
    >>> [(group.size, group.effect) for group in made.findings.groups]
    [(3, 3.0), (2, -1.0)]
    """

    name: ClassVar[str] = "groups"
    needs: ClassVar[frozenset[Need]] = frozenset({"leave_group_out", "full"})
    naming_designs: ClassVar[tuple[str, ...]] = ("design", "full")

    design: str | None = Field(None, description="the leave_group_out design to use, when there are several")
    full: str | None = Field(None, description="the full design to compare with, when there are several")
    share: Literal["example", "group"] = Field(
        "example", description="example: each example gets its share of the group's effect; group: the whole of it"
    )

    @property
    def claims_units(self) -> bool:
        """Where a group's values add up to its effect."""
        return self.share == "example"

    def attribute(self, evidence: Evidence) -> Attribution:
        """Return tau (n, t) and the values of the utility (n,), in the units of the measure."""
        left_out = evidence.of_kind("leave_group_out", design=self.design)
        full = evidence.of_kind("full", design=self.full)
        found = group_effects(left_out, full)
        of_utility = group_effects(utility_runs(left_out), utility_runs(full))
        divide = found.size[found.group] if self.share == "example" else np.ones(evidence.n)
        known = bool(np.isfinite(found.effects.standard_error).any())

        def spread(effects: NDArray[np.float64]) -> NDArray[np.float32]:
            return (effects[found.group] / divide[:, None]).astype(np.float32)

        return Attribution(
            spread(found.effects.values),
            standard_error=spread(found.effects.standard_error) if known else None,
            utility=spread(of_utility.effects.values)[:, 0],
            utility_standard_error=spread(of_utility.effects.standard_error)[:, 0] if known else None,
            degrees_of_freedom=found.effects.degrees_of_freedom,
            fitted_on=(left_out.design, full.design),
            models=len(left_out.outputs) + len(full.outputs),
            details={"share": self.share},
            findings=Findings(
                groups=_table(found, of_utility.effects),
                class_effects=_by_class(evidence, left_out, full),
                group_error=float(np.nanmean(found.effects.standard_error)) if known else math.nan,
            ),
        )


@dataclass(frozen=True)
class MeasuredGroups:
    """Measured effects of including k whole groups; groups are in the order of their first examples."""

    group: NDArray[np.int64]
    """(n,) the group of every example, 0 .. k - 1."""
    size: NDArray[np.int64]
    """(k,) examples of each group."""
    first: NDArray[np.int64]
    """(k,) the first example of each group."""
    effects: Effects
    """Keyed by group: values and standard errors (k, t)."""


def group_effects(left_out: Runs, full: Runs) -> MeasuredGroups:
    """Return the effect of including each group. Raises DataError unless the groups left out part the examples."""
    sets, key = np.unique(~left_out.masks, axis=0, return_inverse=True)
    order = np.argsort(sets.argmax(axis=1), kind="stable")
    sets, key = sets[order], np.argsort(order)[key.reshape(-1)]
    groups_of_each = sets.sum(axis=0)
    never, several = int((groups_of_each == 0).sum()), int((groups_of_each > 1).sum())
    if never or several or not sets.any(axis=1).all():
        raise DataError(
            f"design {left_out.design!r}: of {len(groups_of_each)} examples its runs leave out {never} never and {several} in"
            " more than one group, expected each in one, and no run of all examples"
        )
    return MeasuredGroups(sets.argmax(axis=0), sets.sum(axis=1), sets.argmax(axis=1), effects_of(key, left_out, full))


def _by_class(evidence: Evidence, left_out: Runs, full: Runs) -> ClassEffects | None:
    """Return effects and standard errors, groups x classes, on the mean over each class's queries; None without classes."""
    names = query_classes(evidence)
    if names is None:
        return None
    classes = in_order(names)
    found = group_effects(class_runs(left_out, names, classes), class_runs(full, names, classes)).effects
    return ClassEffects(tuple(classes), found.values, found.standard_error)


def _table(found: MeasuredGroups, utility: Effects) -> tuple[GroupEffect, ...]:
    rows = zip(found.first, found.size, utility.values[:, 0], utility.standard_error[:, 0], strict=True)
    return tuple(GroupEffect(int(first), int(size), float(effect), float(error)) for first, size, effect, error in rows)
