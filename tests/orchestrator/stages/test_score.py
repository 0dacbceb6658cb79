"""What `score` judges by, and what it says of runs that are not there."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator.cli.tables import leaderboard
from orchestrator.report.page.notebook import scores_html
from orchestrator.scoring.table import ScoreRow, as_rows, as_table
from orchestrator.stages.attribute import attribute
from orchestrator.stages.plan import prepare
from orchestrator.stages.report import report
from orchestrator.stages.retrain import retrain
from orchestrator.stages.score import score
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep

Raw = dict[str, Any]

FAILING = """
import numpy as np


class Failing:
    n, t = 12, 3

    def train(self, subset, seed):
        held_out = len(subset) == 6
        if held_out and 0 in subset and 1 in subset:
            raise RuntimeError("no model of both")
        if (held_out or len(subset) == 11) and 2 not in subset and seed % 2:
            raise RuntimeError("odd")
        return subset, seed

    def measure(self, model):
        subset, seed = model
        noise = np.random.default_rng(seed).normal(size=3)
        return {"worth": np.array([1.0, 1.0, 0.0]) * (subset.sum() + noise)}
"""


@pytest.fixture
def judged(tmp_path: Path, make_sweep: Callable[[Raw], Sweep], inline_pool: Any) -> tuple[Sweep, tuple[ScoreRow, ...]]:
    """A sweep some of whose held-out runs fail, whose third query is always 0, scored."""
    (tmp_path / "failing.py").write_text(FAILING)
    raw = {
        "name": "failing",
        "task": {"name": "failing.py:Failing"},
        "measures": ["worth"],
        "pack": 4,
        "designs": {
            "fit": {"kind": "bernoulli", "subsets": 60, "probability": 0.3},
            "heldout": {"kind": "subsets", "subsets": 40, "seeds": 3, "purpose": "score"},
            "again": {"kind": "again", "of": "heldout", "seeds": 2, "purpose": "score"},
            "loo": {"kind": "leave_one_out", "seeds": 2},
        },
        "estimators": {"difference_in_means": {"design": "fit"}},
        "scores": {"lds": {"resamples": 100}, "loo": {"resamples": 100}},
    }
    sweep = make_sweep(raw)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        attribute(sweep, store)
        return sweep, as_rows(score(sweep, store))


def test_a_score_names_its_regime_and_counts_what_is_missing(judged: tuple[Sweep, tuple[ScoreRow, ...]]) -> None:
    sweep, rows = judged
    with RunStore.open(sweep.paths) as store:
        masks, subsets = store.masks("heldout"), store.subsets("heldout")
        states = {name: store.finished(name) for name in store.designs}
        finished = {name: np.unique(store.subsets(name)[states[name]], return_counts=True) for name in store.designs}
    both = np.unique(subsets[masks[:, 0] & masks[:, 1]])
    (row,) = (one for one in rows if one.metric == "lds")
    assert (row.alpha, row.order, row.queries, row.seeds) == (0.5, "own", 3, 3)
    assert row.subsets_left_out == 40 - len(finished["heldout"][0]) >= len(both) > 0
    assert row.subsets == 40 - row.subsets_left_out
    assert row.subsets_with_fewer_seeds == (finished["heldout"][1] < 3).sum() > 0
    assert (row.queries_left_out, row.constant_predictions, row.constant_outputs) == (0, 1, 1)
    (row,) = (one for one in rows if one.metric == "loo_correlation")
    assert (row.alpha, row.order) == (pytest.approx(11 / 12), "own")
    assert row.subsets_left_out == 12 - len(finished["loo"][0])
    assert row.subsets_with_fewer_seeds == (finished["loo"][1] < 2).sum()
    assert math.isnan(row.subsets_not_compared)
    (row,) = (one for one in rows if one.metric == "seed_check")
    assert row.subsets_left_out == 40 - len(finished["again"][0]) > 0
    assert row.subsets_with_fewer_seeds == (finished["again"][1] < 2).sum()
    assert row.subsets_not_compared == len(finished["again"][0]) - row.subsets > 0


def test_the_terminal_the_report_and_a_notebook_say_so(judged: tuple[Sweep, tuple[ScoreRow, ...]]) -> None:
    sweep, rows = judged
    (row,) = (one for one in rows if one.metric == "lds")
    said = f"heldout: 50% of the examples kept, own order of batches, {row.subsets} subsets, 3 seeds each, 3 queries"
    missing = (
        f"{row.subsets_left_out:.0f} subsets without a finished run, {row.subsets_with_fewer_seeds:.0f} subsets with"
    )
    console = Console(width=200)
    with console.capture() as captured:
        console.print(leaderboard(as_table(rows)))
    with RunStore.open(sweep.paths) as store:
        page = report(sweep, store).read_text()
    for shown in (captured.get(), scores_html(as_table(rows)), page):
        flat = " ".join(shown.split())
        assert f"{said}, {missing}" in flat
        assert "queries with constant outputs: 1 (worth)" in flat
        assert "loo: 91.7% of the examples kept, own order of batches" in flat


def test_an_attribution_that_claims_units_has_a_slope(judged: tuple[Sweep, tuple[ScoreRow, ...]]) -> None:
    rows = {one.metric: one for one in judged[1]}
    assert rows["slope"].low < rows["slope"].value < rows["slope"].high
    assert (rows["slope"].queries, rows["slope"].queries_left_out, rows["slope"].alpha) == (2, 1, 0.5)
    assert rows["explained_variance"].queries == 3
