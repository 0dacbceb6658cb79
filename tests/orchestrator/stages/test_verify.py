"""Runs trained again are compared: every measure, every query, every row with its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orchestrator.execution.pool import Done
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.stages.verify import rerun
from orchestrator.sweeps.sweep import Sweep
from workers.runs import Failure, Outcome

Raw = dict[str, Any]
Change = Callable[[Outcome], Outcome]
RUNS = 12


class Changed:
    """A pool whose outcomes come back changed."""

    def __init__(self, pool: Any, change: Change):
        self._pool, self._change = pool, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def collect(self, timeout: float) -> list[Any]:
        landed = self._pool.collect(timeout)
        return [
            replace(one, outcomes=tuple(map(self._change, one.outcomes))) if isinstance(one, Done) else one
            for one in landed
        ]


def add(measure: str, query: int, much: float) -> Change:
    def change(outcome: Outcome) -> Outcome:
        values = np.array(outcome.outputs[measure])
        values[query] += much
        return replace(outcome, outputs={**outcome.outputs, measure: values})

    return change


@pytest.fixture
def again(game: Raw, make_sweep: Callable[[Raw], Sweep], inline_pool: Any) -> Callable[..., list[Any]]:
    """Train a sweep of two measures; again(change, count) trains runs of it again, changed, and compares."""
    game["measures"] = ["worth", "saturating"]
    game["designs"] = {"fit": {"kind": "subsets", "subsets": RUNS // 2, "seeds": 2}}
    sweep = make_sweep(game)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))

    def compare(change: Change, count: int = RUNS) -> list[Any]:
        with prepare(sweep) as store:
            return rerun(sweep, store, count, pool=Changed(inline_pool(sweep), change))

    return compare


def test_what_is_as_it_was_is_equal(again: Callable[..., list[Any]]) -> None:
    found = again(lambda outcome: outcome)
    assert [one.row for one in found] == list(range(RUNS))
    assert all(one.equal and one.difference == 0 for one in found)


@pytest.mark.parametrize("measure", ["worth", "saturating"])
@pytest.mark.parametrize("query", [0, 2])
def test_one_query_of_one_measure_is_enough_to_differ(
    again: Callable[..., list[Any]], measure: str, query: int
) -> None:
    found = again(add(measure, query, 0.25))
    assert not any(one.equal for one in found)
    assert [one.difference for one in found] == pytest.approx([0.25] * RUNS, rel=1e-5)


def test_the_last_bit_differs_too(again: Callable[..., list[Any]]) -> None:
    def nudge(outcome: Outcome) -> Outcome:
        outputs = {name: np.nextafter(values, np.float32(9)) for name, values in outcome.outputs.items()}
        return replace(outcome, outputs=outputs)

    assert not any(one.equal for one in again(nudge))


def test_only_the_run_that_differs_is_said_to(again: Callable[..., list[Any]]) -> None:
    change = add("saturating", 1, -1.0)
    found = again(lambda outcome: change(outcome) if outcome.row == 5 else outcome)
    assert [one.row for one in found if not one.equal] == [5]


def test_a_run_that_fails_this_time_differs(again: Callable[..., list[Any]]) -> None:
    found = again(lambda outcome: Outcome(outcome.row, failure=Failure("ValueError", "not today", "")), 3)
    assert [(one.equal, np.isnan(one.difference)) for one in found] == [(False, True)] * 3
