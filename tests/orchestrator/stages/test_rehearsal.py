"""What scores and the report are said to take, held against stages whose time is known, and against a real page."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from estimators.scores.seeds import seeds_per_subset
from orchestrator.attribution.evidence import heldout, load_runs
from orchestrator.forecast import time_limit
from orchestrator.report import collect as collecting
from orchestrator.report.page import html
from orchestrator.scoring.lds import LinearDatamodelingScore
from orchestrator.scoring.seed_check import SeedCheck
from orchestrator.scoring.table import Judged, ScoreRow
from orchestrator.stages import made_up_sweep as making
from orchestrator.stages.attribute import attribute
from orchestrator.stages.made_up_sweep import made_up_sweep
from orchestrator.stages.plan import prepare
from orchestrator.stages.rehearsal import FIGURE, figures, stage_times
from orchestrator.stages.report import report
from orchestrator.stages.retrain import retrain
from orchestrator.stages.score import score
from orchestrator.store.attributions import list_attributions, read_attribution
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]


def judging(subsets: int, resamples: int, queries: int) -> float:
    """Seconds to judge one attribution."""
    return 0.5 + 1e-4 * subsets * resamples * queries


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each part of scoring and reporting take what it costs, and nothing else take time."""
    now = [0.0]

    def judge(self: LinearDatamodelingScore, sweep: Sweep, store: RunStore, judged: Judged) -> list[ScoreRow]:
        runs, section = heldout(sweep, store, judged.measure), sweep.config.scores.lds
        assert runs is not None
        assert section is not None
        now[0] += judging(len(np.unique(runs.subsets)), section.resamples, store.t)
        return []

    def check(self: SeedCheck, sweep: Sweep, store: RunStore) -> list[ScoreRow]:
        now[0] += 3.0 * store.t
        return []

    def collect(sweep: Sweep, store: RunStore) -> None:
        now[0] += 0.2 + 0.1 * store.t * len(list_attributions(sweep.paths))

    def render(data: None) -> str:
        now[0] += 2.0
        return 4 * FIGURE

    monkeypatch.setattr(LinearDatamodelingScore, "judge", judge)
    monkeypatch.setattr(SeedCheck, "judge_sweep", check)
    monkeypatch.setattr(collecting, "collect", collect)
    monkeypatch.setattr(html, "render", render)
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(perf_counter=lambda: now[0]))


def seconds(sweep: Sweep) -> tuple[float, ...]:
    made = stage_times(sweep, sweep.plans, 60.0)
    assert [one.stage for one in made] == ["scores", "the report"]
    assert [one.unknown for one in made] == ["", ""]
    return tuple(one.seconds for one in made)


@pytest.mark.parametrize(
    ("estimators", "resamples", "subsets", "t"),
    [(1, 100, 6, 8), (3, 100, 6, 8), (1, 300, 6, 8), (1, 100, 12, 8), (1, 100, 6, 40), (2, 100, 6, 1)],
)
def test_the_forecast_grows_as_the_cost_does(
    tiny: Raw, make_sweep: Make, clock: None, estimators: int, resamples: int, subsets: int, t: int
) -> None:
    tiny["task"]["arguments"]["t"] = t
    tiny["designs"]["heldout"]["subsets"] = subsets
    tiny["scores"]["lds"]["resamples"] = resamples
    tiny["estimators"] = {f"random{k}": {"estimator": "random"} for k in range(estimators)}
    scores, shown = seconds(make_sweep(tiny))
    assert scores == pytest.approx(3.0 * t + estimators * judging(subsets, resamples, t))
    plots = min(estimators, 2) * min(t, 3)
    assert shown == pytest.approx(0.2 + 0.1 * t * estimators + (4 + plots) * 2.0 / 4)


def test_nothing_is_foreseen_that_takes_too_long_or_is_too_much(
    tiny: Raw, make_sweep: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(tiny)
    assert {one.unknown for one in stage_times(sweep, sweep.plans, 0.01)} == {"was not through in that time"}
    monkeypatch.setattr(making, "LARGEST", 1000)
    made = stage_times(sweep, sweep.plans)
    assert {one.unknown for one in made} == {"could not be tried: DataError: its runs are too many to be made up"}
    assert {one.seconds for one in made} == {0.0}


def shapes(tiny: Raw, game: Raw, tmp_path: Path) -> dict[str, Raw]:
    """Return sweeps in which ever other runs are scored on."""
    np.save(tmp_path / "weights.npy", np.tile(np.linspace(0, 2, 60, dtype=np.float32), (5, 1)))
    fresh = {"again": {"kind": "again", "of": "heldout", "seeds": 2, "purpose": "score"}}
    orders = {
        "everything": {"kind": "full", "seeds": 2},
        "orders": {"kind": "permutations", "permutations": 80, "truncation": 0.01},
    }
    removal = {"estimators": ["random"], "fractions": [0, 0.5], "seeds": 2}
    weights = {"kind": "weights", "file": "weights.npy"}
    return {
        "all scores": {
            **tiny,
            "designs": {**tiny["designs"], **fresh},
            "scores": {"spread": {"resamples": 100}, "removal": removal},
            "estimators": {**tiny["estimators"], "leave_one_out": {"missing": "zero"}},
        },
        "nothing to attribute": {**tiny, "estimators": {}},
        "training examples": {**tiny, "queries": {"source": "train", "indices": [3, 1, 4]}},
        "permutations": {**game, "designs": orders, "estimators": {"shapley": {}}},
        "weights": {**tiny, "designs": {**tiny["designs"], "weighed": weights}},
    }


@pytest.mark.parametrize(
    "shape", ["all scores", "nothing to attribute", "training examples", "permutations", "weights"]
)
def test_the_stages_are_rehearsed_on_any_sweep_and_leave_nothing(
    tiny: Raw, game: Raw, make_sweep: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    sweep = make_sweep(shapes(tiny, game, tmp_path)[shape])
    assert min(seconds(sweep)) > 0
    assert list(elsewhere.iterdir()) == []
    assert not sweep.paths.root.exists()


def test_a_made_up_sweep_holds_all_runs_that_are_judged_by(tiny: Raw, make_sweep: Make) -> None:
    tiny["designs"]["fit"]["subsets"] = 1000
    tiny["designs"]["heldout"] |= {"subsets": 100, "seeds": 3}
    sweep = make_sweep({**tiny, "estimators": {"random": {}, "difference_in_means": {}}})
    with made_up_sweep(sweep, sweep.plans, 2) as (made, store):
        assert (store.n, store.t) == (60, 2)
        assert {name: one.runs for name, one in store.designs.items()} == {
            "reference": 2,
            "fit": making.FEW,
            "heldout": 300,
            "left_out": 8,
        }
        runs = load_runs(made, store, "heldout", "margin")
        assert np.array_equal(runs.masks, sweep.plans["heldout"].rows(0, 300).masks)
        assert set(seeds_per_subset(runs)) == {3}
        table = score(made, store)
        kept = {label: read_attribution(made.paths, label).attributes for label in list_attributions(made.paths)}
    assert {label: one.fitted_on for label, one in kept.items()} == dict.fromkeys(
        ("random", "difference_in_means"), ("fit",)
    ), "what is fitted on runs is held against them"
    lds = table[table["metric"] == "lds"]
    assert (lds["value"] > 0.5).all(), "there is something to find, and it is found: nothing is cut short"
    assert (lds["ceiling_low"] > 0).all()


def test_figures_are_counted_as_the_report_has_them(tiny: Raw, make_sweep: Make, inline_pool: Any) -> None:
    tiny["stop"] = {"fit": {"when": "standard_error < 1e-9 or runs >= 16", "every": 8}}
    tiny["scores"] |= {"loo": None}
    sweep = make_sweep(tiny)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        attribute(sweep, store)
        score(sweep, store)
        page = report(sweep, store).read_text()
    assert page.count(FIGURE) == figures(sweep) == 4 + 2 * 3 + 1, (
        "charts, plots, and the criterion's error, not its runs"
    )
