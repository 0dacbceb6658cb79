import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orchestrator.attribution.early_stopping import watched
from orchestrator.retraining.counts import finished
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.store import work_clock
from orchestrator.store.ledger import DONE, PENDING
from orchestrator.sweeps.stopping_record import read_stopping
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]


@pytest.fixture
def stopped(game: Raw) -> Raw:
    """A hundred subsets, of which a criterion wants but some; packs of 4."""
    game["task"]["arguments"] = {"n": 8, "noise": 0.1}
    game["designs"] = {"fit": {"kind": "subsets", "subsets": 100}}
    game["stop"] = {"fit": {"when": "runs >= 20", "every": 4}}
    return game


def done(sweep: Sweep, store: Any) -> int:
    return int((store.states("fit") == DONE).sum())


def test_it_launches_no_more_finishes_what_is_in_flight_and_keeps_the_curve(
    stopped: Raw, make_sweep: Make, inline_pool: Any
) -> None:
    sweep = make_sweep(stopped)
    with prepare(sweep) as store:
        pool = inline_pool(sweep)
        retrain(sweep, store, pool=pool)
        trained = done(sweep, store)
        assert trained == sum(len(job.runs) for job in pool.submitted), "what was launched is kept"
        assert 20 <= trained <= 20 + 4 * pool.slots * sweep.config.ray.in_flight
        assert finished(sweep, store)["fit"] == (trained, 0, 0), "nothing is pending any more"
        curve = read_stopping(sweep)["fit"]
        assert [look.runs for look in curve.looks] == [4, 8, 12, 16, 20]
        assert [look.met for look in curve.looks] == [False] * 4 + [True]
        assert [look.values for look in curve.looks] == [{"runs >= 20.0": float(k)} for k in (4, 8, 12, 16, 20)]
        again = inline_pool(sweep)
        retrain(sweep, store, pool=again)
        assert again.submitted == []


def test_runs_added_later_are_those_of_a_sweep_of_all_at_once(
    stopped: Raw, make_sweep: Make, make_config: Callable[[Raw], Any], inline_pool: Any, tmp_path: Any
) -> None:
    def outputs(raw: Raw, folder: str) -> np.ndarray:
        sweep = Sweep.of(make_config(raw), tmp_path / folder)
        with prepare(sweep) as store:
            retrain(sweep, store, pool=inline_pool(sweep))
            states, found = store.states("fit"), store.outputs("fit", "worth")
        assert (states == DONE).all() or "stop" in raw
        return found

    without = {key: value for key, value in stopped.items() if key != "stop"}
    fewer = {**without, "designs": {"fit": {"kind": "subsets", "subsets": 60}}}
    at_once = outputs(without, "at once")
    outputs(stopped, "stopped")
    np.testing.assert_array_equal(outputs(without, "stopped"), at_once)
    outputs(fewer, "grown")
    np.testing.assert_array_equal(outputs(without, "grown"), at_once)


def test_another_criterion_goes_on(stopped: Raw, make_sweep: Make, inline_pool: Any) -> None:
    first = make_sweep(stopped)
    with prepare(first) as store:
        retrain(first, store, pool=inline_pool(first))
    stopped["stop"]["fit"]["when"] = "runs >= 60"
    second = make_sweep(stopped)
    with prepare(second) as store:
        assert finished(second, store)["fit"][2] > 0
        retrain(second, store, pool=inline_pool(second))
        assert 60 <= done(second, store) < 100
    assert read_stopping(second)["fit"].criterion == "runs >= 60"


def test_the_errors_of_the_values_are_watched_as_they_shrink(stopped: Raw, make_sweep: Make, inline_pool: Any) -> None:
    stopped["stop"]["fit"] = {"when": "standard_error < 0.2 or rank_stability > 2 over the last 2", "every": 4}
    sweep = make_sweep(stopped)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        looks = read_stopping(sweep)["fit"].looks
        kept = json.loads(sweep.paths.stopping.read_text())
    assert [one["looks"][-1]["met"] for one in kept] == [True]
    error, stability = "standard_error < 0.2", "rank_stability > 2.0 over the last 2"
    known = [look.values[error] for look in looks if look.values[error] is not None]
    assert known[-1] < 0.2 <= min(known[:-1], default=1)
    assert looks[0].values[stability] is None, "there is nothing to look back at"
    assert looks[-1].values[stability] is not None


def test_hours_count_and_designs_without_a_criterion_go_on(stopped: Raw, make_sweep: Make, inline_pool: Any) -> None:
    stopped["stop"]["fit"] = {"when": "hours >= 0", "every": 4}
    stopped["designs"]["others"] = {"kind": "subsets", "subsets": 12}
    sweep = make_sweep(stopped)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        assert (store.states("others") == DONE).all()
        assert (store.states("fit") == PENDING).any()


@pytest.mark.parametrize(("module", "clock", "stops"), [(time, "time", False), (work_clock, "monotonic", True)])
def test_hours_are_those_of_a_clock_that_cannot_be_set(
    stopped: Raw,
    make_sweep: Make,
    inline_pool: Any,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    clock: str,
    stops: bool,
) -> None:
    stopped["stop"]["fit"] = {"when": "hours >= 5", "every": 4}
    sweep = make_sweep(stopped)
    with prepare(sweep) as store:
        store.begin_work()
        ahead = getattr(module, clock)() + 10 * 3600
        monkeypatch.setattr(module, clock, lambda: ahead)
        retrain(sweep, store, pool=inline_pool(sweep))
        assert bool((store.states("fit") == PENDING).any()) is stops


def test_permutations_are_watched_by_their_shapley_values(game: Raw, make_sweep: Make, inline_pool: Any) -> None:
    game["task"]["arguments"] = {"n": 8}
    game["designs"] = {"orders": {"kind": "permutations", "permutations": 40}}
    game["stop"] = {"orders": {"when": "standard_error < 0.001", "every": 8}}
    sweep = make_sweep(game)
    assert watched(sweep.config, "orders").name == "shapley"
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        # An additive game: two permutations agree, and two are needed for a standard error.
        assert read_stopping(sweep)["orders"].looks[-1].met
        assert (store.states("orders") == DONE).sum() < 8 * 12


@pytest.mark.parametrize(
    ("stop", "complaint"),
    [
        ({"everything": {"when": "runs >= 1"}}, r"stop\.everything: a design of kind 'full' has no values to watch"),
        ({"fit": {"when": "runs > "}}, r"stop\.fit\.when: .*expected a number"),
        ({"fot": {"when": "runs > 1"}}, r"stop\.fot: no design of that name"),
        ({"fit": {"when": "runs > 1", "estimator": "shapley"}}, r"stop\.fit\.estimator: no estimator 'shapley'"),
    ],
)
def test_what_cannot_be_watched_is_refused(stopped: Raw, make_sweep: Make, stop: Raw, complaint: str) -> None:
    stopped["designs"]["everything"] = {"kind": "full"}
    with pytest.raises(ConfigError, match=complaint):
        make_sweep({**stopped, "stop": stop})
