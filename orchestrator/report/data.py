"""What a report shows: plain arrays and tables, filled from a sweep folder by whoever asks for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.scoring.suspects import Suspects
from orchestrator.scoring.table import refuse_other_columns
from workers.errors import DataError
from workers.runs import Queries

Family = Literal["retraining", "gradients", "other"]
"""What an estimator's answers come from: retrained models, gradients (or features) of a few models, or neither."""


@dataclass(frozen=True)
class DesignHealth:
    """How the runs of one design went."""

    name: str
    kind: str
    purpose: str
    """What its runs are for: fit or score."""
    runs: int
    done: int
    failed: int
    train_seconds: float
    """Training time summed over its runs."""
    wall_seconds: float
    """Time from its first pack to its last, as a clock on the wall shows it."""
    rate: float
    """Finished runs a second of wall time."""
    left_out: int = 0
    """Runs that truncation, or a stopping criterion that was met, left out for good."""


@dataclass(frozen=True)
class Expectation:
    """One line of forecast against fact; NaN for what is not known."""

    what: str
    unit: Literal["time", "count", "bytes", "number"]
    """time in seconds."""
    forecast: float
    low: float
    high: float
    """Ends of the forecast's 95% interval."""
    fact: float


@dataclass(frozen=True)
class StopCurve:
    """One comparison of a stopping criterion, as it went."""

    design: str
    comparison: str
    """As it is written, such as `standard_error < 0.02`."""
    threshold: float
    runs: NDArray[np.int64]
    """(k,) finished runs at each look."""
    values: NDArray[np.float64]
    """(k,) NaN while unknown."""
    met: bool
    """Whether the whole criterion stopped the design."""


@dataclass(frozen=True)
class LearningLine:
    """The learning curve of one estimator, as it is drawn: held-out rank correlation against the runs it is fitted on."""

    estimator: str
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
    ceiling: tuple[float, float, float]
    """What ever more runs would approach, with its interval."""
    more: int
    gain: tuple[float, float, float]
    """By which factor that many more runs raise a correlation, with its interval."""
    sentence: str
    """What they would bring, in words."""


@dataclass(frozen=True)
class Utilities:
    """What one estimator says that each example is worth: effects of including it on the measure's mean over the queries."""

    estimator: str
    measure: str
    values: NDArray[np.float64]
    """(n,)"""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """(n,) ends of 95% intervals, NaN where there is none."""


@dataclass(frozen=True)
class GroupRow:
    """What including a whole group does to the measure's mean over the queries."""

    estimator: str
    measure: str
    name: str
    size: int
    effect: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassTable:
    """What including each of k groups does to the measure's mean over the queries of each of c classes."""

    estimator: str
    measure: str
    groups: tuple[str, ...]
    """(k,) rows; where groups are classes, in the order of the columns."""
    classes: tuple[str, ...]
    """(c,) columns."""
    effects: NDArray[np.float64]
    """(k, c)"""
    standard_errors: NDArray[np.float64]
    """(k, c), NaN where unknown."""

    @property
    def largest(self) -> float:
        """The largest size of an effect."""
        return float(np.abs(self.effects).max())

    @property
    def digits(self) -> int:
        """Decimals with which the table is shown."""
        return 2 if self.largest >= 1 else 3


@dataclass(frozen=True)
class Foretold:
    """Effects of including each of k whole groups on the measure's mean over the queries, foretold and measured."""

    estimator: str
    measure: str
    groups: tuple[str, ...]
    """(k,)"""
    predicted: NDArray[np.float64]
    """(k,) sums of values over the group's examples."""
    actual: NDArray[np.float64]
    """(k,) what leaving each out really changed."""
    correlation: float
    """Pearson's, over the groups; NaN where one side is constant."""


@dataclass(frozen=True)
class RemovalLine:
    """One curve of retraining without valued examples."""

    estimator: str
    order: str
    """best, worst, or any for a random order."""
    measure: str
    removed: NDArray[np.float64]
    """(k,) fractions."""
    utility: NDArray[np.float64]
    """(k,) mean of the measure over queries and seeds."""
    standard_error: NDArray[np.float64]
    """(k,) over seeds; NaN for a single one."""


@dataclass(frozen=True)
class ReportData:
    """Everything on the page. `n` training examples, `t` queries, `s` held-out subsets.

    Raises DataError where an array's shape does not fit the others.
    """

    title: str
    created: str
    description: str
    """One line on the task."""
    measure: str
    n: int
    t: int
    config_yaml: str
    config_hash: str
    versions: Mapping[str, str]
    designs: tuple[DesignHealth, ...]
    scores: pd.DataFrame
    """Tidy, its columns the fields of ScoreRow."""
    models: Mapping[str, int]
    """Estimator -> number of trained models it used."""
    actual: NDArray[np.floating]
    """(s, t) outputs of the held-out subsets, mean over their seeds."""
    predicted: Mapping[str, NDArray[np.floating]]
    """Estimator -> (s, t): masks @ tau, plus the bias where there is one."""
    per_query_lds: Mapping[str, NDArray[np.floating]]
    """Estimator -> (t,); NaN where a query has no rank correlation."""
    per_query_ceiling: NDArray[np.floating]
    """(t,) what each query says for itself; NaN where unknown or where there is nothing to find."""
    attributions: Mapping[str, NDArray[np.float32]]
    """Estimator -> (n, t)."""
    stage_seconds: Mapping[str, float]
    failures: tuple[str, ...]
    """One line a failure, shortened by the caller to the ones worth reading."""
    show: Callable[[str, int], NDArray[np.uint8] | str] | None = None
    """("train" | "task", index) -> image (h, w) or (h, w, 3) uint8, or text; None where the task shows nothing."""
    label: Callable[[str, int], str] | None = None
    """("train" | "task", index) -> label."""
    queries: Queries = field(default_factory=Queries)
    """Which examples the t queries are."""
    families: Mapping[str, Family] = field(default_factory=dict)
    """Estimator -> family; one that is not here is looked up by its registered name."""
    curves: Mapping[str, str] = field(default_factory=dict)
    """Estimator -> what it has in common with those that differ from it in the number of reference models alone."""
    tunings: Mapping[str, str] = field(default_factory=dict)
    """Estimator -> how its options were chosen, in words, where fitting runs chose them."""
    expectations: tuple[Expectation, ...] = ()
    stopping: tuple[StopCurve, ...] = ()
    stopped: tuple[str, ...] = ()
    """Where each design stopped that is drawn from no more, and why."""
    learning_curves: tuple[LearningLine, ...] = ()
    utilities: tuple[Utilities, ...] = ()
    group_effects: tuple[GroupRow, ...] = ()
    class_effects: tuple[ClassTable, ...] = ()
    foretold: tuple[Foretold, ...] = ()
    removal: tuple[RemovalLine, ...] = ()
    stale_scores: Mapping[str, str] = field(default_factory=dict)
    """Estimator -> why its scores are not those of the attribution that is there."""
    suspects: Suspects | None = None
    """Of the estimator that finds the mislabelled examples best."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Key of what the sweep names and is not here -> what follows, and the remedy."""

    def __post_init__(self) -> None:
        refuse_other_columns(self.scores.columns)
        subsets = self.actual.shape[0]
        self._expect("actual", self.actual, (subsets, self.t))
        self._expect("per_query_ceiling", self.per_query_ceiling, (self.t,))
        for name, values in self.predicted.items():
            self._expect(f"predicted[{name!r}]", values, (subsets, self.t))
        for name, values in self.per_query_lds.items():
            self._expect(f"per_query_lds[{name!r}]", values, (self.t,))
        for one in self.utilities:
            for name, values in (("values", one.values), ("low", one.low), ("high", one.high)):
                self._expect(f"utilities[{one.estimator!r}].{name}", values, (self.n,))
        for name, values in self.attributions.items():
            self._expect(f"attributions[{name!r}]", values, (self.n, self.t))

    @staticmethod
    def _expect(name: str, values: NDArray[np.floating], shape: tuple[int, ...]) -> None:
        if values.shape != shape:
            raise DataError(f"report: {name} has shape {values.shape}, expected {shape}")
