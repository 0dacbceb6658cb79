import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from orchestrator.attribution.early_stopping import Stopper, watched
from orchestrator.retraining.counts import finished
from orchestrator.retraining.watch import Watch
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.store import work_clock
from orchestrator.store.accounting import as_they_came
from orchestrator.store.ledger import DONE, PENDING
from orchestrator.sweeps.stopping_record import read_stopping, stopped_designs
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


def test_another_estimator_s_values_are_looked_at_anew(stopped: Raw, make_sweep: Make, inline_pool: Any) -> None:
    stopped["stop"]["fit"] = {"when": "standard_error < 0.5 and runs >= 20", "every": 4}
    first = make_sweep(stopped)
    with prepare(first) as store:
        retrain(first, store, pool=inline_pool(first))
        assert list(stopped_designs(first, store)) == ["fit"]
    assert read_stopping(first)["fit"].estimator == "difference_in_means"
    # Means of subsets with and without an example have errors; of those that a datamodel fits it tells none.
    stopped["estimators"] = {"fitted": {"estimator": "datamodel"}}
    stopped["stop"]["fit"]["estimator"] = "fitted"
    second = make_sweep(stopped)
    with prepare(second) as store:
        assert not stopped_designs(second, store)
        retrain(second, store, pool=inline_pool(second))
        assert done(second, store) == 100
    assert read_stopping(second)["fit"].estimator == "fitted"


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


# What is trained beyond


def largest_error(store: Any) -> float:
    """The largest standard error of an example's effect on the mean query, from what is stored; no code of the stopper."""
    rows = store.finished("fit")
    masks, worth = store.masks("fit")[rows], store.outputs("fit", "worth")[rows].astype(np.float64).mean(axis=1)
    sides = [[worth[masks[:, i] == side] for side in (True, False)] for i in range(store.n)]
    if min(len(one) for both in sides for one in both) < 2:
        return np.inf
    return max(float(np.sqrt(sum(one.var(ddof=1) / len(one) for one in both))) for both in sides)


@pytest.mark.parametrize(
    ("slots", "pack", "every", "bound", "least"),
    [(1, 4, 4, 0.35, 0), (2, 64, 20, 0.35, 60), (2, 7, 20, 0.25, 0), (8, 32, 40, 0.25, 80), (3, 400, 1, 0.4, 0)],
)
def test_at_most_every_and_what_was_in_flight_is_trained_beyond_the_first_moment_that_meets_it(
    stopped: Raw, make_sweep: Make, inline_pool: Any, slots: int, pack: int, every: int, bound: float, least: int
) -> None:
    stopped["pack"] = pack
    stopped["designs"]["fit"]["subsets"] = 600
    stopped["stop"]["fit"] = {"when": f"standard_error < {bound} and runs >= {least}", "every": every}
    sweep = make_sweep(stopped)
    sent_at: list[int] = []
    with prepare(sweep) as store:
        pool = inline_pool(sweep, slots=slots)

        def landed(design: str, new: int, failed: int) -> None:
            stored = done(sweep, store)
            if not sent_at and stored >= least and largest_error(store) < bound:
                sent_at.extend([sum(len(job.runs) for job in pool.submitted), stored])

        retrain(sweep, store, Watch(on_commit=landed), pool=pool)
        trained, looks = sum(len(job.runs) for job in pool.submitted), read_stopping(sweep)["fit"].looks
        assert done(sweep, store) == trained, "all that was launched is kept"
    assert looks[-1].met
    assert sent_at[1] < 300, "or nothing could be trained beyond"
    sent, stored = sent_at
    assert trained - stored <= every + (sent - stored)
    assert sent - stored <= 2 * every + 2 * slots, "what is in flight is little, too"
    steps = np.diff([0, *(look.runs for look in looks)])
    assert (steps >= every).all()
    assert (steps <= 1.25 * every + 1).all(), "packs do not put looks off"


def test_what_is_stored_is_looked_at_before_anything_is_launched(
    stopped: Raw, make_sweep: Make, inline_pool: Any
) -> None:
    first = make_sweep(stopped)
    with prepare(first) as store:
        retrain(first, store, pool=inline_pool(first))
        before = done(first, store)
    stopped["stop"]["fit"] = {"when": "standard_error < 100 and runs >= 10", "every": 400}
    second, said = make_sweep(stopped), []
    with prepare(second) as store:
        pool = inline_pool(second)
        retrain(second, store, Watch(on_stop=said.append), pool=pool)
        assert pool.submitted == []
        (look,) = read_stopping(second)["fit"].looks
        assert (look.runs, look.met) == (before, True)
        retrain(second, store, Watch(on_stop=said.append), pool=pool)
    assert [(one.design, one.look.runs, one.done, one.planned) for one in said] == [("fit", before, before, 100)] * 2


def test_ranks_are_looked_back_at_in_what_is_stored(stopped: Raw, make_sweep: Make, inline_pool: Any) -> None:
    class NewestFirst(inline_pool):  # type: ignore[misc]
        def collect(self, timeout: float) -> list[Any]:
            self._flying.rotate(1)
            found: list[Any] = super().collect(timeout)
            return found

    stopped["task"]["arguments"] = {"n": 8, "noise": 1.0}
    first = make_sweep(stopped)
    with prepare(first) as store:
        retrain(first, store, pool=NewestFirst(first))
    stopped["stop"]["fit"]["when"] = "rank_stability > -1 over the last 2"
    second = make_sweep(stopped)
    with prepare(second) as store:
        known = Stopper(second, store)
        known.begin()
        (look,) = known.curves["fit"].looks
        rows = as_they_came(store, "fit")
        values = []
        for count in (len(rows) - 8, len(rows) - 4, len(rows)):
            chosen = np.sort(rows[:count])
            masks, outputs = store.masks("fit")[chosen], store.outputs("fit", "worth")[chosen].mean(axis=1)
            values.append([outputs[masks[:, i]].mean() - outputs[~masks[:, i]].mean() for i in range(8)])
    expected = min(spearmanr(values[-1], earlier).statistic for earlier in values[:2])
    assert look.met
    assert look.values["rank_stability > -1.0 over the last 2"] == pytest.approx(expected, abs=1e-6)
    assert expected < 1, "or any values would do"
    assert (rows != np.sort(rows)).any(), "or the order of rows would do"


def test_a_design_whose_runs_were_lost_is_stopped_no_more(stopped: Raw, make_sweep: Make, inline_pool: Any) -> None:
    sweep, said = make_sweep(stopped), []
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        assert list(stopped_designs(sweep, store)) == ["fit"]
        store.forget("fit", range(10))
        assert not stopped_designs(sweep, store)
        assert finished(sweep, store)["fit"][2] > 0
        retrain(sweep, store, Watch(on_stop=said.append), pool=inline_pool(sweep))
        runs = [look.runs for look in read_stopping(sweep)["fit"].looks]
        assert done(sweep, store) >= 20
    assert said[0].look.runs >= 20
    assert runs == sorted(set(runs)), "looks at what is there no more are forgotten"


def test_packs_of_a_sweep_that_was_made_before_stay_what_they_are(
    stopped: Raw, make_sweep: Make, make_config: Callable[[Raw], Any], inline_pool: Any, tmp_path: Any
) -> None:
    stopped["pack"] = 16
    without = {key: value for key, value in stopped.items() if key != "stop"}
    old = make_sweep(without)
    with prepare(old) as store:
        seen = []
        until = Watch(on_commit=lambda *counts: seen.append(counts), should_stop=lambda: bool(seen))
        retrain(old, store, until, pool=inline_pool(old, slots=1))
        assert 0 < done(old, store) < 100
    stopped["stop"]["fit"] = {"when": "runs >= 60", "every": 4}
    again = make_sweep(stopped)
    assert again.plans["fit"].pack == 16
    assert Sweep.of(make_config(stopped), tmp_path / "new").plans["fit"].pack == 4
    with prepare(again) as store:
        retrain(again, store, pool=inline_pool(again))
        assert 60 <= done(again, store) <= 60 + 4 * 16
    last = make_sweep(without)
    with prepare(last) as store:
        retrain(last, store, pool=inline_pool(last))
        gone_on = store.outputs("fit", "worth")
        assert store.designs["fit"].pack == 16
    at_once = Sweep.of(make_config({**without, "pack": 100}), tmp_path / "at once")
    with prepare(at_once) as store:
        retrain(at_once, store, pool=inline_pool(at_once))
        np.testing.assert_array_equal(gone_on, store.outputs("fit", "worth"))


@pytest.mark.parametrize(("pack", "every", "expected"), [(750, 200, 200), (64, 200, 50), (64, 211, 53), (8, 1, 1)])
def test_whole_packs_make_up_what_lies_between_two_looks(
    stopped: Raw, make_sweep: Make, pack: int, every: int, expected: int
) -> None:
    stopped["pack"] = pack
    stopped["stop"]["fit"]["every"] = every
    stopped["designs"]["others"] = {"kind": "subsets", "subsets": 12}
    plans = make_sweep(stopped).plans
    assert plans["fit"].pack == expected
    assert plans["others"].pack == pack


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
