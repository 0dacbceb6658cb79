"""A sweep that is asked how well the spread over seeds is predicted: from the configuration to what a reader sees."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from estimators.scores import spread_lds
from orchestrator.attribution.evidence import load_runs
from orchestrator.cli.tables import leaderboard
from orchestrator.report.page.notebook import scores_html
from orchestrator.scoring.table import ScoreRow, as_rows, as_table
from orchestrator.stages.attribute import attribute
from orchestrator.stages.plan import prepare
from orchestrator.stages.report import report
from orchestrator.stages.retrain import retrain
from orchestrator.stages.score import judge, score
from orchestrator.store.attributions import read_attribution, write_attribution
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, DataError

Raw = dict[str, Any]

UNSTEADY = """
import numpy as np


class Unsteady:
    n, t = 12, 8

    def train(self, subset, seed):
        if len(subset) == 6 and {0, 1, 2} <= set(subset.tolist()) and seed % 4 == 0:
            raise RuntimeError("some seeds fail")
        return subset, seed

    def measure(self, model):
        subset, seed = model
        spread = np.exp(0.5 * (subset - 5.5).sum())  # example i raises its logarithm by (i - 5.5) / 2
        return {"worth": -subset.sum() + spread * np.random.default_rng(seed).normal(size=8)}
"""
NOISY = (np.arange(12.0) - 5.5)[:, None].repeat(8, axis=1)


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    (tmp_path / "unsteady.py").write_text(UNSTEADY)
    return {
        "name": "unsteady",
        "task": {"name": "unsteady.py:Unsteady"},
        "measures": ["worth"],
        "pack": 4,
        "designs": {
            "fit": {"kind": "bernoulli", "subsets": 60, "probability": 0.3},
            "heldout": {"kind": "subsets", "subsets": 40, "seeds": 4, "purpose": "score"},
        },
        "estimators": {"difference_in_means": {"design": "fit"}},
        "scores": {"lds": {"resamples": 100}, "spread": {"resamples": 100}},
    }


def scored(sweep: Sweep, inline_pool: Any) -> tuple[ScoreRow, ...]:
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        attribute(sweep, store)
        return as_rows(score(sweep, store))


def shown(rows: tuple[ScoreRow, ...]) -> list[str]:
    """Return what the terminal and a notebook show, in one line each."""
    console = Console(width=200)
    with console.capture() as captured:
        console.print(leaderboard(as_table(rows)))
    return [" ".join(text.split()) for text in (captured.get(), scores_html(as_table(rows)))]


def test_the_spread_is_judged_beside_the_mean_and_shown(
    raw: Raw, make_sweep: Callable[[Raw], Sweep], inline_pool: Any
) -> None:
    sweep = make_sweep(raw)
    rows = scored(sweep, inline_pool)
    assert [row.metric for row in rows][:1] == ["lds"]
    (row,) = (one for one in rows if one.metric == "spread_lds")
    with prepare(sweep) as store:
        runs = load_runs(sweep, store, "heldout", "worth")
        array = judge(sweep, store, NOISY)
        page = " ".join(report(sweep, store).read_text().split())
        finished = np.unique(runs.subsets, return_counts=True)[1]
        (exact,) = (one for one in as_rows(array) if one.metric == "spread_lds")
    assert row.subsets_with_fewer_seeds == (finished < 4).sum() > 0
    assert row.subsets == 40 - row.subsets_with_fewer_seeds - row.subsets_left_out
    assert (row.design, row.seeds, row.queries, row.alpha, row.order) == ("heldout", 4, 8, 0.5, "own")
    assert row.low < row.value < row.high
    wanted = spread_lds(NOISY, runs, resamples=100, planned=40)
    assert (exact.value, exact.low, exact.ceiling, exact.share) == (
        wanted.value,
        wanted.low,
        wanted.ceiling,
        wanted.share.value,
    )
    assert exact.value > 0.6
    assert exact.share == pytest.approx(1, abs=0.15)
    said = (
        f"{row.subsets} subsets, 4 seeds each, 8 queries, {row.subsets_with_fewer_seeds:.0f} subsets with fewer seeds"
    )
    for text in (*shown(rows), page):
        assert "rank correlation with the spread of outputs over seeds" in text
        assert said in text
        assert f"worth: noise ceiling {row.ceiling:.3f}, 95% interval" in text


def test_where_seeds_are_few_the_reason_stands_where_the_ceiling_would(
    raw: Raw, make_sweep: Callable[[Raw], Sweep], inline_pool: Any
) -> None:
    """Also without the LDS, which has a design of its own."""
    raw["designs"]["heldout"]["seeds"] = 3
    raw["scores"]["lds"] = None
    rows = scored(make_sweep(raw), inline_pool)
    (row,) = rows
    assert row.metric == "spread_lds"
    assert math.isnan(row.ceiling)
    for text in shown(rows):
        assert "worth: no noise ceiling, which needs 5 subsets with 4 seeds each" in text


def test_it_is_off_unless_asked_for(raw: Raw, make_sweep: Callable[[Raw], Sweep], inline_pool: Any) -> None:
    del raw["scores"]["spread"]
    assert [row.metric for row in scored(make_sweep(raw), inline_pool)] == ["lds", "slope", "explained_variance"]


def test_nothing_is_scored_on_what_it_was_fitted_on(
    raw: Raw, make_sweep: Callable[[Raw], Sweep], inline_pool: Any
) -> None:
    """Without the LDS, which would refuse it first."""
    raw["scores"]["lds"] = None
    sweep = make_sweep(raw)
    scored(sweep, inline_pool)
    kept = read_attribution(sweep.paths, "difference_in_means")
    attributes = replace(kept.attributes, fitted_on=("heldout",))
    write_attribution(sweep.paths, "difference_in_means", replace(kept, attributes=attributes))
    with (
        prepare(sweep) as store,
        pytest.raises(DataError, match="was fitted on design 'heldout' and cannot be scored on"),
    ):
        score(sweep, store)


def test_runs_that_are_not_there_yet_are_no_error(raw: Raw, make_sweep: Callable[[Raw], Sweep]) -> None:
    sweep = make_sweep(raw)
    with prepare(sweep) as store, pytest.raises(DataError, match="has no finished scoring runs"):
        judge(sweep, store, NOISY)


def test_where_failures_left_one_seed_a_subset_there_is_no_row_yet(
    raw: Raw, make_sweep: Callable[[Raw], Sweep], inline_pool: Any, tmp_path: Path
) -> None:
    (tmp_path / "unsteady.py").write_text(
        UNSTEADY.replace("{0, 1, 2} <= set(subset.tolist()) and seed % 4 == 0", "seed % 16")
    )
    sweep = make_sweep(raw)
    assert {row.metric for row in scored(sweep, inline_pool)} == {"lds", "slope", "explained_variance"}
    with prepare(sweep) as store:
        finished = np.unique(load_runs(sweep, store, "heldout", "worth").subsets, return_counts=True)[1]
    assert len(finished) >= 2 > (finished > 1).sum()


def test_one_seed_a_subset_is_refused_before_anything_is_trained(raw: Raw, make_sweep: Callable[[Raw], Sweep]) -> None:
    raw["designs"]["heldout"]["seeds"] = 1
    said = "scores.spread: a spread over seeds needs 2 seeds a subset, designs.heldout.seeds is 1"
    with pytest.raises(ConfigError) as caught:
        prepare(make_sweep(raw))
    assert str(caught.value) == said


def test_runs_with_one_seed_are_refused_when_they_are_there(
    raw: Raw, make_sweep: Callable[[Raw], Sweep], inline_pool: Any
) -> None:
    """As a configuration says that is changed over the same runs, or over imported ones."""
    raw["designs"]["heldout"]["seeds"] = 1
    later = {**raw, "scores": raw["scores"]}
    sweep = make_sweep({**raw, "scores": {"lds": {"resamples": 100}}})
    scored(sweep, inline_pool)
    with prepare(sweep) as store, pytest.raises(ConfigError, match=r"scores.spread: .* design 'heldout' has 1"):
        score(make_sweep(later), store)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heldout": None}, "scores.spread: needs a scoring design with 2 seeds or more; add one"),
        (
            {"second": {"kind": "subsets", "subsets": 40, "seeds": 4, "purpose": "score"}},
            "scores.spread.design: several designs can serve (heldout, second); name one",
        ),
    ],
)
def test_it_must_know_its_design(raw: Raw, make_sweep: Callable[[Raw], Sweep], change: Raw, said: str) -> None:
    raw["scores"]["lds"] = None
    designs = {**raw["designs"], **change}
    with pytest.raises(ConfigError) as caught:
        prepare(make_sweep({**raw, "designs": {name: one for name, one in designs.items() if one}}))
    assert str(caught.value) == said


def test_an_unknown_key_is_refused(raw: Raw, make_sweep: Callable[[Raw], Sweep]) -> None:
    raw["scores"]["spread"] = {"resample": 100}
    with pytest.raises(ConfigError, match=r"unknown key 'scores.spread.resample': did you mean resamples\?"):
        make_sweep(raw)
