"""What an estimator may find out beside its values: typed parts of an attribution, and the one place where they become JSON.

On disk they are keys of an attribution's `details` (`summary`, `learning_curve`, `groups`, `by_class`, `group_error`,
`tuning`), beside whatever else the estimator tells. A number that is not known is NaN here and null there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.tuning import Tuning

Interval = tuple[float, float, float]
"""A value, and the ends of its 95% interval."""


@dataclass(frozen=True)
class LearningCurve:
    """Held-out correlation against the runs that an estimator is fitted on: measured, continued, and what that says."""

    queries: int
    """Queries it is the mean over."""
    runs: NDArray[np.int64]
    """(k,) fitting runs that were tried."""
    measured: NDArray[np.float64]
    """(3, k) correlation, and the ends of its 95% interval."""
    ahead: NDArray[np.int64]
    """(a,) runs from the last of these on."""
    expected: NDArray[np.float64]
    """(3, a) correlation there, and the ends of its 95% interval."""
    ceiling: Interval
    """What ever more runs would approach."""
    more: int
    """How many more runs `gain` and `sentence` speak of."""
    gain: Interval
    """By which factor that many more runs raise a correlation."""
    sentence: str
    """What they would bring, in words."""
    seconds: float = 0.0
    """Time the curve took: it is no part of what the attribution cost."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "queries": self.queries,
            "runs": self.runs.tolist(),
            **_rows(self.measured),
            "ahead": {"runs": self.ahead.tolist(), **_rows(self.expected)},
            "ceiling": list(self.ceiling),
            "more": self.more,
            "gain": list(self.gain),
            "sentence": self.sentence,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> LearningCurve:
        """Return the curve that `to_json` told."""
        return cls(
            told["queries"],
            np.array(told["runs"]),
            _array(told),
            np.array(told["ahead"]["runs"]),
            _array(told["ahead"]),
            tuple(told["ceiling"]),
            told["more"],
            tuple(told["gain"]),
            told["sentence"],
            told.get("seconds", 0.0),
        )


@dataclass(frozen=True)
class GroupEffect:
    """What including a whole group does to the utility, the measure's mean over the queries."""

    first_example: int
    """The first of its examples, by which it is known."""
    size: int
    """Number of its examples."""
    effect: float
    standard_error: float
    """NaN where it is not known."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "first_example": self.first_example,
            "size": self.size,
            "effect": self.effect,
            "standard_error": _known(self.standard_error),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> GroupEffect:
        """Return the effect that `to_json` told."""
        error = told["standard_error"]
        return cls(told["first_example"], told["size"], told["effect"], math.nan if error is None else error)


@dataclass(frozen=True)
class ClassEffects:
    """What including each of k groups does to the measure's mean over the queries of each of c classes."""

    classes: tuple[str, ...]
    """(c,) names of the classes of queries."""
    effects: NDArray[np.float64]
    """(k, c), the groups in the order of `Findings.groups`."""
    standard_errors: NDArray[np.float64]
    """(k, c), NaN where unknown."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        errors = [[_known(error) for error in row] for row in self.standard_errors.tolist()]
        return {"classes": list(self.classes), "effects": self.effects.tolist(), "standard_errors": errors}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> ClassEffects:
        """Return the effects that `to_json` told."""
        effects, errors = (np.array(told[name], dtype=np.float64) for name in ("effects", "standard_errors"))
        return cls(tuple(told["classes"]), effects, errors)  # None becomes NaN


@dataclass(frozen=True)
class Findings:
    """Everything that stages and reports know how to show of an attribution beside its values."""

    summary: str = ""
    """How good the answer is, in one line; empty where there is nothing to say."""
    learning_curve: LearningCurve | None = None
    groups: tuple[GroupEffect, ...] = ()
    """Effects of the groups that were left out, in the order of their first examples."""
    class_effects: ClassEffects | None = None
    """The same by classes of queries, where the task names classes."""
    group_error: float = math.nan
    """Mean standard error of a group's whole effect on one query, whatever share of it the values are; NaN where unknown."""
    tuning: Tuning | None = None
    """How its options were chosen, where fitting runs chose them."""

    def to_json(self) -> dict[str, Any]:
        """Return what was found, by its keys on disk."""
        told: dict[str, Any] = {}
        if self.summary:
            told["summary"] = self.summary
        if self.learning_curve is not None:
            told["learning_curve"] = self.learning_curve.to_json()
        if self.groups:
            told["groups"] = [one.to_json() for one in self.groups]
        if self.class_effects is not None:
            told["by_class"] = self.class_effects.to_json()
        if math.isfinite(self.group_error):
            told["group_error"] = self.group_error
        if self.tuning is not None:
            told["tuning"] = self.tuning.to_json()
        return told

    @classmethod
    def from_json(cls, details: Mapping[str, Any]) -> Findings:
        """Return what the details of a stored attribution tell; a curve that is not continued is as good as none."""
        curve, by_class = details.get("learning_curve"), details.get("by_class")
        tuning = details.get("tuning")
        return cls(
            details.get("summary") or "",
            LearningCurve.from_json(curve) if curve and "ahead" in curve else None,
            tuple(GroupEffect.from_json(one) for one in details.get("groups") or ()),
            ClassEffects.from_json(by_class) if by_class else None,
            details.get("group_error", math.nan),
            Tuning.from_json(tuning) if tuning else None,
        )


def _rows(curve: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return a correlation and the ends of its interval, (3, k), by name."""
    return dict(zip(("correlation", "low", "high"), curve.tolist(), strict=True))


def _array(told: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return (3, k) of what `_rows` told."""
    return np.array([told[name] for name in ("correlation", "low", "high")])


def _known(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
