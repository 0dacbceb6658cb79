"""What attributions are said to take, held against estimators whose time is known."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

from estimators import registry
from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence
from estimators.reference_estimator import Material, ModelEffects, ReferenceEstimator
from orchestrator.forecast.attribution_time import AttributionForecast, attribution_times
from orchestrator.sweeps.sweep import Sweep

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]
seen: list[Evidence] = []
foreseen: list[Evidence] = []


class Clocked(Estimator):
    """Takes `each` seconds a query it is asked about, and `once`."""

    name: ClassVar[str] = "clocked"
    needs: ClassVar[frozenset[Need]] = frozenset({"subsets"})
    each: float = 0.0
    once: float = 0.0
    broken: bool = False
    known: float | None = None

    def foresee(self, evidence: Evidence) -> float | None:
        foreseen.append(evidence)
        return self.known

    def attribute(self, evidence: Evidence) -> Attribution:
        seen.append(evidence)
        if self.broken:
            raise ZeroDivisionError("by nothing")
        until = time.perf_counter() + self.once + self.each * evidence.t
        while time.perf_counter() < until:
            try:
                time.sleep(0.001)
            except Exception:  # as an estimator might
                continue
        return Attribution(np.zeros((evidence.n, evidence.t), np.float32))


class ClockedOnModels(Clocked, ReferenceEstimator):
    """The same, for every reference model."""

    name: ClassVar[str] = "clocked_on_models"
    needs: ClassVar[frozenset[Need]] = frozenset({"checkpoints", "gradients"})

    def effects(self, material: Material) -> ModelEffects:
        raise NotImplementedError


class ClockedOnItsOwn(ClockedOnModels):
    """One that trains the models that it looks at."""

    name: ClassVar[str] = "clocked_on_its_own"
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})


@pytest.fixture
def raw(tiny: Raw, monkeypatch: pytest.MonkeyPatch) -> Iterator[Raw]:
    for kind in (Clocked, ClockedOnModels, ClockedOnItsOwn):
        monkeypatch.setitem(registry.BUILT_IN, kind.name, f"{__name__}:{kind.__name__}")
    seen.clear()
    foreseen.clear()
    yield tiny
    registry.find.cache_clear()


def times(sweep: Sweep, budget: float = 8.0) -> dict[str, AttributionForecast]:
    return {one.estimator: one for one in attribution_times(sweep, sweep.plans, budget)}


def test_an_estimator_of_runs_is_timed_on_as_many_as_it_will_get(raw: Raw, make_sweep: Make) -> None:
    raw["estimators"] = {"clocked": {"once": 0.2}}
    sweep = make_sweep(raw)
    (made,) = times(sweep).values()
    assert made.unknown == ""
    assert made.seconds == pytest.approx(0.2, abs=0.1)
    (evidence,) = seen
    assert {name: runs.outputs.shape for name, runs in evidence.runs.items()} == {
        "reference": (2, 8),
        "fit": (20, 8),
        "left_out": (8, 8),
    }, "those kept for scoring are not among them"
    rows = sweep.plans["fit"].rows(0, 20)
    assert np.array_equal(evidence.runs["fit"].masks, rows.masks)


@pytest.mark.parametrize(("models", "expected"), [(None, 2), (1, 1)])
def test_an_estimator_of_models_is_timed_on_one_of_them_and_some_queries(
    raw: Raw, make_sweep: Make, models: int | None, expected: int
) -> None:
    raw["estimators"] = {"clocked_on_models": {"once": 0.1, "each": 0.05, "models": models}}
    (made,) = times(make_sweep(raw)).values()
    assert made.unknown == ""
    assert made.seconds == pytest.approx(expected * (0.1 + 8 * 0.05), rel=0.3)
    assert [one.t for one in seen] == [1, 1, 2], "not all queries, and the first time is not counted"
    assert {len(one.references) for one in seen} == {1}
    assert [one.epoch for one in seen[0].references[0].checkpoints] == [1, 3]


def test_one_that_trains_what_it_looks_at_is_timed_once_with_its_own_number(raw: Raw, make_sweep: Make) -> None:
    raw["estimators"] = {"own": {"estimator": "clocked_on_its_own", "models": 4, "once": 0.05}}
    found = times(make_sweep(raw))["own"]
    assert not found.unknown
    assert found.seconds == pytest.approx(0.05, rel=0.8)
    assert {len(one.references) for one in seen} == {0}


def test_one_that_takes_long_is_ended_and_said_to_take_longer(raw: Raw, make_sweep: Make) -> None:
    raw["estimators"] = {"clocked": {"once": 60.0}, "random": {}}
    started = time.perf_counter()
    made = times(make_sweep(raw), budget=0.6)
    assert time.perf_counter() - started < 10
    assert made["clocked"].unknown == "was not through in that time"
    assert 0.3 <= made["clocked"].seconds < 5
    assert made["random"].unknown == "", "the others are timed all the same"


def test_one_that_cannot_be_tried_says_why(raw: Raw, make_sweep: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    raw["estimators"] = {"clocked": {"broken": True}}
    (made,) = times(make_sweep(raw)).values()
    assert made == AttributionForecast("clocked", 0.0, "could not be tried: ZeroDivisionError: by nothing")
    monkeypatch.setattr("orchestrator.forecast.attribution_time.LARGEST", 10)
    (made,) = times(make_sweep(raw)).values()
    assert made.unknown == "could not be tried: DataError: its runs are too many to be made up"


def test_one_that_foresees_its_time_is_not_tried(raw: Raw, make_sweep: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.forecast.attribution_time.LARGEST", 10)
    raw["estimators"] = {"clocked": {"known": 7200.0}}
    (made,) = times(make_sweep(raw)).values()
    assert made == AttributionForecast("clocked", 7200.0), "however many its runs are"
    assert seen == []
    (evidence,) = foreseen
    assert {name: (runs.kind, runs.masks.shape, runs.outputs.shape) for name, runs in evidence.runs.items()} == {
        "reference": ("full", (2, 60), (2, 8)),
        "fit": ("subsets", (20, 60), (20, 8)),
        "left_out": ("leave_one_out", (8, 60), (8, 8)),
    }


def test_a_thread_that_hears_no_alarm_times_nothing(raw: Raw, make_sweep: Make) -> None:
    raw["estimators"] = {"clocked": {}}
    sweep, found = make_sweep(raw), []
    thread = threading.Thread(target=lambda: found.extend(times(sweep).values()))
    thread.start()
    thread.join()
    assert found[0].unknown == "is timed in the main thread only"
    assert seen == []


@pytest.mark.parametrize(
    "label", ["difference_in_means", "tracin", "influence", "leave_one_out", "datamodel", "random"]
)
def test_estimators_that_come_with_the_library_can_be_tried(raw: Raw, make_sweep: Make, label: str) -> None:
    raw["estimators"] = {label: {"missing": "zero"} if label == "leave_one_out" else {}}
    (made,) = times(make_sweep(raw), budget=120.0).values()
    assert made.unknown == ""
    assert made.seconds >= 0


def test_permutations_are_made_up_too(game: Raw, make_sweep: Make) -> None:
    game["designs"] = {"orders": {"kind": "permutations", "permutations": 6}}
    (made,) = times(make_sweep({**game, "estimators": {"shapley": {}}})).values()
    assert made.unknown == ""


def test_an_estimator_of_models_that_foresees_its_time_is_not_tried(raw: Raw, make_sweep: Make) -> None:
    """It sees one trained model and all queries, and says what one model takes; there are two."""
    raw["estimators"] = {"clocked_on_models": {"known": 12.5, "once": 60.0}}
    (made,) = times(make_sweep(raw), budget=60.0).values()
    assert (made.seconds, made.unknown) == (25.0, "")
    assert seen == []
    (evidence,) = foreseen
    assert (evidence.t, len(evidence.references)) == (8, 1)
