import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from estimators.registry import find
from orchestrator.attribution.evidence import gather
from orchestrator.config.loading import load
from orchestrator.execution import resources
from orchestrator.forecast import cost as costing
from orchestrator.forecast import trial_runs
from orchestrator.forecast.cost import Forecast, forecast, pack_by_time
from orchestrator.forecast.standard_error import Trial, expected_errors
from orchestrator.forecast.trial_runs import TrialRuns, try_runs
from orchestrator.stages import forecast as forecasting
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.sweeps.sweep import Sweep
from workers.packs import PackTrainer
from workers.runs import Outcome, Queries, Run

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]


def cost(size: float) -> float:
    """Seconds of a training, on a clock that nothing disturbs."""
    return 0.002 + 1e-4 * size


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings take what they cost, and nothing else take time."""
    now = [0.0]

    def train(_: PackTrainer, runs: Sequence[Run], measures: Sequence[str], queries: Any) -> list[Outcome]:
        now[0] += sum(cost(len(run.subset)) for run in runs)
        return [Outcome(run.row, dict.fromkeys(measures, np.zeros(3, np.float32))) for run in runs]

    monkeypatch.setattr(PackTrainer, "train", train)
    monkeypatch.setattr(costing, "PACK_OVERHEAD", 0.0)
    monkeypatch.setattr(costing, "RUN_OVERHEAD", 0.0)
    monkeypatch.setattr(trial_runs, "time", SimpleNamespace(perf_counter=lambda: now[0]))


@pytest.fixture
def designs(game: Raw) -> Raw:
    game["task"]["arguments"] = {"n": 30}
    game["designs"] = {
        "everything": {"kind": "full", "seeds": 3},
        "fit": {"kind": "subsets", "subsets": 300, "alpha": 0.4},
        "without": {"kind": "leave_one_out", "seeds": 3},
        "orders": {"kind": "permutations", "permutations": 20},
    }
    return game


def test_the_forecast_time_is_what_the_runs_take(designs: Raw, make_sweep: Make, clock: None) -> None:
    sweep = make_sweep({**designs, "ray": {"workers": 1}})
    trial = try_runs(sweep, sweep.plans, budget=1.0)
    assert trial.seconds_at(12) == pytest.approx(cost(12))
    made = forecast(sweep, sweep.plans, trial, 1000)
    for one in made.designs:
        rows = sweep.plans[one.design].rows(0, sweep.plans[one.design].runs)
        assert one.runs == len(rows.masks)
        assert one.seconds == pytest.approx(sum(cost(mask.sum()) for mask in rows.masks), rel=1e-6)
    fact = sum(cost(mask.sum()) for plan in sweep.plans.values() for mask in plan.rows(0, plan.runs).masks)
    assert made.low < fact < made.high
    assert made.low < made.seconds < made.high


@pytest.mark.parametrize("slow", [1, 100])
def test_long_trainings_are_foretold_from_a_part_of_their_examples(
    tiny: Raw, make_sweep: Make, clock: None, monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    monkeypatch.setattr(trial_runs, "strategy_of", lambda *_: None)
    monkeypatch.setattr("tests.orchestrator.forecast.test_cost.cost", lambda size: slow * (0.002 + 1e-4 * size))
    sizes: list[int] = []
    train = PackTrainer.train

    def counted(trainer: PackTrainer, runs: Sequence[Run], *rest: Any) -> list[Outcome]:
        sizes.extend(len(run.subset) for run in runs)
        return train(trainer, runs, *rest)

    monkeypatch.setattr(PackTrainer, "train", counted)
    tiny["task"]["arguments"] |= {"n": 1000, "recipe": {"batch_size": 10}}
    sweep = make_sweep(tiny)
    trial = try_runs(sweep, sweep.plans, budget=8.0)
    whole = {500, 999, 1000}
    assert whole <= set(sizes) if slow == 1 else max(sizes) < 500
    assert all(trial.seconds_at(size) == pytest.approx(cost(size)) for size in whole)
    assert sum(map(cost, sizes)) < 12


def test_two_workers_take_half_as_long(designs: Raw, make_sweep: Make, clock: None) -> None:
    seconds = {}
    for workers in (1, 2):
        sweep = make_sweep({**designs, "ray": {"workers": workers}})
        made = forecast(sweep, sweep.plans, try_runs(sweep, sweep.plans, budget=1.0), 0)
        seconds[workers] = made.seconds
    assert seconds[1] == pytest.approx(2 * seconds[2])


def test_as_many_workers_are_foretold_as_the_machine_has_memory_for(
    designs: Raw, make_sweep: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "cores", lambda: 8)
    monkeypatch.setattr(resources, "total_bytes", lambda: 1000)

    def slots(**ray: Any) -> int:
        sweep = make_sweep({**designs, "ray": ray})
        return forecast(sweep, sweep.plans, TrialRuns((12, 30), (0.1, 0.1)), 0).slots

    assert slots() == 8
    assert slots(num_cpus=3) == 2
    assert slots(memory=800) == 1
    assert slots(memory=300) == 3
    assert slots(workers=2) == 2
    assert slots(num_cpus=16, address="ray.example:6379") == 1


def test_a_worker_s_start_is_counted_and_is_the_uncertain_part_of_a_short_sweep(designs: Raw, make_sweep: Make) -> None:
    sweep = make_sweep(designs)
    quick, slow_to_start = (
        forecast(sweep, sweep.plans, TrialRuns((12, 30), (0.001, 0.001), start=start), 0) for start in (0.0, 3.0)
    )
    assert slow_to_start.seconds - quick.seconds == pytest.approx(3.0)
    assert slow_to_start.low == quick.low, "a worker that is up already needs no start"
    assert slow_to_start.high - quick.high == pytest.approx(6.0)


def test_the_first_runs_tell_what_a_start_takes(
    designs: Raw, make_sweep: Make, clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, train, calls = make_sweep(designs), PackTrainer.train, []

    def slow_at_first(trainer: PackTrainer, *given: Any) -> list[Outcome]:
        calls.append(given)
        if len(calls) == 1:
            train(trainer, [Run(0, np.arange(980), 0)], ("x",), Queries())  # takes 0.1 s
        return train(trainer, *given)

    monkeypatch.setattr(PackTrainer, "train", slow_at_first)
    assert try_runs(sweep, sweep.plans, budget=1.0).start == pytest.approx(0.1)


def test_a_forecast_survives_being_written(designs: Raw, make_sweep: Make, clock: None) -> None:
    sweep = make_sweep(designs)
    made = forecast(sweep, sweep.plans, try_runs(sweep, sweep.plans, budget=1.0), 7)
    plain = made.to_json()
    assert plain["designs"][0]["standard_error"] is None, "full runs alone give no values"
    assert Forecast.from_json(plain).to_json() == plain


def test_removal_curves_are_counted(designs: Raw, make_sweep: Make, clock: None) -> None:
    designs["estimators"] = {"shapley": {}, "leave_one_out": {}}
    designs["scores"] = {
        "removal": {"estimators": ["shapley", "leave_one_out"], "fractions": [0, 0.5], "seeds": 3, "better": "higher"}
    }
    sweep = make_sweep(designs)
    made = forecast(sweep, sweep.plans, try_runs(sweep, sweep.plans, budget=1.0), 0)
    assert (made.designs[-1].design, made.designs[-1].runs) == ("removal curves", (2 * 2 + 1) * 2 * 3)


@pytest.mark.parametrize(("seconds", "pack"), [(10.0, 8), (0.1, 16), (0.05, 32), (0.001, 150)])
def test_packs_are_cut_by_time(
    designs: Raw, make_sweep: Make, monkeypatch: pytest.MonkeyPatch, seconds: float, pack: int
) -> None:
    monkeypatch.setattr(costing, "cores", lambda: 1)
    sweep = make_sweep(designs)  # its largest design has 600 runs: no pack of more than a quarter
    sizes = (12, 30)
    assert pack_by_time(TrialRuns(sizes, (seconds, seconds)), sweep.plans) == pack


# Standard errors


NOISY: Raw = {
    "task": {"name": "digits", "arguments": {"n": 30, "t": 20, "model": "logistic", "recipe": {"epochs": 3}}},
    "measures": ["margin"],
    "pack": 32,
    "designs": {
        "everything": {"kind": "full", "seeds": 6, "checkpoints": "none"},
        "fit": {"kind": "subsets", "subsets": 150},
        "paired": {"kind": "leave_one_out", "examples": 10, "seeds": 6, "paired_with": "everything"},
        "unpaired": {"kind": "leave_one_out", "examples": 10, "seeds": 6},
        "orders": {"kind": "permutations", "permutations": 25},
    },
    "scores": {"loo": None},
}


@pytest.mark.slow
def test_the_errors_foretold_are_those_measured_within_a_factor_of_two(make_sweep: Make, inline_pool: Any) -> None:
    sweep = make_sweep(NOISY)
    options: dict[str, tuple[str, Raw]] = {
        "fit": ("difference_in_means", {}),
        "paired": ("leave_one_out", {"design": "paired", "missing": "zero"}),
        "unpaired": ("leave_one_out", {"design": "unpaired", "missing": "zero"}),
        "orders": ("shapley", {"empty": -2.2}),
    }
    sweep = make_sweep({**NOISY, "estimators": {"shapley": {"empty": -2.2}}})
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        evidence = gather(sweep, store, "margin")
    for name, (estimator, given) in options.items():
        foretold = expected_errors(
            Trial(sweep, sweep.plans, sweep.plans[name], 200, PackTrainer(sweep.task))
        ).attribution
        measured = find(estimator).model_validate(given).attribute(evidence).standard_error
        assert measured is not None
        assert 0.5 < foretold / np.nanmean(measured) < 2, name


def test_too_few_trainings_foretell_nothing(designs: Raw, make_sweep: Make) -> None:
    sweep = make_sweep(designs)
    for name, needed in (("fit", 8), ("without", 6), ("orders", 12)):
        errors = [
            expected_errors(Trial(sweep, sweep.plans, sweep.plans[name], runs, PackTrainer(sweep.task))).attribution
            for runs in (needed - 1, needed)
        ]
        assert np.isnan(errors).tolist() == [True, False], name
    everything = sweep.plans["everything"]
    assert np.isnan(expected_errors(Trial(sweep, sweep.plans, everything, 100, PackTrainer(sweep.task))).attribution)


@pytest.mark.parametrize("paired", [True, False])
def test_shared_seeds_cancel_the_noise_of_training(game: Raw, make_sweep: Make, inline_pool: Any, paired: bool) -> None:
    game["task"]["arguments"] = {"n": 8, "noise": 5.0}
    without = {"kind": "leave_one_out", "seeds": 4, **({"paired_with": "everything"} if paired else {})}
    game["designs"] = {"everything": {"kind": "full", "seeds": 4}, "without": without}
    sweep = make_sweep(game)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        made = find("leave_one_out")().attribute(gather(sweep, store, "worth"))
    assert made.standard_error is not None
    foretold = expected_errors(
        Trial(sweep, sweep.plans, sweep.plans["without"], 30, PackTrainer(sweep.task))
    ).attribution
    if paired:
        np.testing.assert_allclose(made.values, np.tile(0.9 ** np.arange(8), (3, 1)).T, atol=1e-5)
        assert made.standard_error.max() < 1e-5
        assert foretold < 1e-5
    else:
        assert np.abs(made.values).max() > 1.5
        assert 0.4 < foretold / made.standard_error.mean() < 2.5


# Asking first


@pytest.fixture
def long_yaml(designs: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of which trial runs say that it takes days."""
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump({**designs, "pack": "auto"}))
    return path


def slow(sweep: Sweep, plans: Any) -> TrialRuns:
    return TrialRuns((12, 30), (500.0, 700.0))


def test_a_long_sweep_asks_first_and_without_a_terminal_refuses(
    refused: Callable[..., str], long_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasting, "try_runs", slow)
    said = refused("run", long_yaml, "--out", tmp_path / "sweep")
    assert said.startswith("error: forecast: 993 runs, ")
    assert said.endswith("that is long; add --yes if it is meant")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_with_yes_it_goes_on_and_keeps_the_forecast(
    command: Callable[..., Any], long_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_started: None
) -> None:
    monkeypatch.setattr(forecasting, "try_runs", slow)
    ended = command("run", long_yaml, "--out", tmp_path / "sweep", "--yes", "designs.orders.permutations=1")
    assert ended.code == 0, ended.err
    assert ended.err.startswith("forecast: 423 runs, ")
    kept = costing.read_forecast(Sweep.at(tmp_path / "sweep"))
    assert kept is not None
    assert kept.seconds > forecasting.LARGE_SECONDS
    assert "Forecast and fact" in (tmp_path / "sweep" / "report.html").read_text()


# What `plan` tells


@pytest.fixture
def game_yaml(designs: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of the game with packs by time, where `plan` looks for runs/game; trial runs take a moment."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "game.yaml"
    path.write_text(yaml.safe_dump({**designs, "pack": "auto", "estimators": {"difference_in_means": {}}}))
    return path


def test_plan_tells_of_the_configuration_given_not_of_the_sweep_in_its_folder(
    command: Callable[..., Any], refused: Callable[..., str], game_yaml: Path, tmp_path: Path
) -> None:
    sweep, made = forecasting.settle(Sweep.of(load(str(game_yaml))), always=True)
    assert made is not None
    assert sweep.paths.root == tmp_path / "runs" / "game"
    with prepare(sweep):
        costing.keep_forecast(sweep, replace(made, seconds=987654.0))
    slow_game = (
        (tmp_path / "game.py").read_text().replace("return subset,", "import time; time.sleep(0.02); return subset,")
    )
    (tmp_path / "slow.py").write_text(slow_game)
    before = sorted(tmp_path.rglob("*"))
    other = command("plan", game_yaml, "task.name=slow.py:Game", "--json")
    assert other.code == 0
    trained = json.loads(other.out)["forecast"]
    assert 0.02 * 993 / trained["slots"] < trained["seconds"] < 10 * 0.02 * 993
    assert "the longest kind takes" in trained["pack"], (
        "packs are sized for it, not as those of the sweep that is there"
    )
    assert "`run` would be refused: " in other.err
    assert "task.name is 'slow.py:Game' here and 'game.py:Game' there" in other.err
    grown = json.loads(command("plan", game_yaml, "designs.fit.subsets=900", "--json").out)["forecast"]
    assert {one["design"]: one["runs"] for one in grown["designs"]}["fit"] == 900, "nor of what it had before it grew"
    assert grown["seconds"] < 987654
    assert "was made from another configuration (task.name" in refused("run", game_yaml, "task.name=slow.py:Game")
    assert sorted(tmp_path.rglob("*")) == before


def test_plan_fails_with_the_reason_when_every_trial_run_does(
    command: Callable[..., Any], game_yaml: Path, tmp_path: Path
) -> None:
    failing = (
        (tmp_path / "game.py")
        .read_text()
        .replace("return subset,", "raise ValueError('no convergence'); return subset,")
    )
    (tmp_path / "bad.py").write_text(failing)
    ended = command("plan", game_yaml, "task.name=bad.py:Game")
    assert ended.code == 1
    assert ended.out == ""
    assert re.fullmatch(
        r"failed: all of the \d+ trial runs failed, the first with ValueError: no convergence\n", ended.err
    )


def test_plan_shows_what_fails_of_some_trial_runs(command: Callable[..., Any], game_yaml: Path, tmp_path: Path) -> None:
    failing = (
        (tmp_path / "game.py")
        .read_text()
        .replace(
            "return subset,", "\n        if len(subset) == self.n: raise ValueError('too full')\n        return subset,"
        )
    )
    (tmp_path / "bad.py").write_text(failing)
    ended = command("plan", game_yaml, "task.name=bad.py:Game")
    assert ended.code == 0
    assert "trial runs failed, the first with ValueError: too full" in " ".join(ended.out.split())


@pytest.mark.parametrize(("noise", "matter"), [(0.0, False), (1e-3, True)])
def test_that_seeds_change_nothing_is_said(
    command: Callable[..., Any], designs: Raw, game_yaml: Path, noise: float, matter: bool
) -> None:
    ended = command("plan", game_yaml, f"task.arguments.noise={noise}")
    assert ("seeds change nothing" in ended.out) is not matter
    assert ("noise ceiling is 1.000" in " ".join(ended.out.split())) is not matter


def test_the_forecast_names_its_parts_and_its_errors(command: Callable[..., Any], game_yaml: Path) -> None:
    ended = command("plan", game_yaml, "designs.fit.subsets=40")
    told = " ".join(ended.out.split())
    for part in ("Ray's start 8.0 s, trainings ", ", attributions ", "attributions: difference_in_means "):
        assert part in told, part
    assert re.search(r", scores [\d.]+ m?s, the report [\d.]+ m?s; up to", told)
    assert re.search(r" to [^;]*\), with \d+ packs at once", told), "nothing is left out"
    assert "of one query, that of one attribution, an example's effect on that query" in told
    assert "of the utility, that of its effect on the mean over the queries, which `stop` watches" in told
    forecast = json.loads(command("plan", game_yaml, "designs.fit.subsets=40", "--json").out)["forecast"]
    (timed,) = forecast["attributions"]
    assert forecast["left_out"] == []
    stages = {one["stage"]: one["seconds"] for one in forecast["stages"]}
    assert list(stages) == ["scores", "the report"]
    assert min(stages.values()) > 0
    assert (timed["estimator"], timed["unknown"]) == ("difference_in_means", "")
    middle, low, high = forecast["total"]
    assert middle == pytest.approx(costing.RAY_SECONDS + forecast["seconds"] + timed["seconds"] + sum(stages.values()))
    assert low < middle < high


def test_the_error_of_the_utility_is_that_of_the_mean_query(game: Raw, make_sweep: Make, inline_pool: Any) -> None:
    """Queries with independent noise: their mean has the square root of their number less of it."""
    game["task"]["arguments"] = {"n": 12, "noise": 2.0}
    game["designs"] = {
        "everything": {"kind": "full", "seeds": 4},
        "fit": {"kind": "bernoulli", "subsets": 400},
        "without": {"kind": "leave_one_out", "seeds": 4},
        "orders": {"kind": "permutations", "permutations": 40},
    }
    sweep = make_sweep(game)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        made = find("difference_in_means")().attribute(gather(sweep, store, "worth"))
    assert made.utility_standard_error is not None
    trainer = PackTrainer(sweep.task)
    for name, tolerance in {
        "fit": 0.25,
        "orders": 0.4,
        "without": 0.6,
    }.items():  # of 100 pairs, of some steps, of 3 seeds
        foretold = expected_errors(Trial(sweep, sweep.plans, sweep.plans[name], 200, trainer))
        assert foretold.utility / foretold.attribution == pytest.approx(3**-0.5, rel=tolerance), name
    fit = expected_errors(Trial(sweep, sweep.plans, sweep.plans["fit"], 400, trainer))
    assert 0.5 < fit.utility / made.utility_standard_error.mean() < 2
