"""A metric of somebody else's is one class and one registration, and is seen wherever ours are."""

import io
import math
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator.cli.tables import leaderboard
from orchestrator.scoring import registry
from orchestrator.scoring.metric import Metric, Quantity
from orchestrator.scoring.table import ScoreRow, as_rows, read_scores
from orchestrator.stages.plan import prepare
from orchestrator.stages.report import report
from orchestrator.stages.score import judge, score
from orchestrator.store.attributions import Attributes, StoredAttribution, write_attribution
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, DataError

Raw = dict[str, Any]


class Sparsity(Metric):
    """The share of entries that are 0, and for the whole sweep the number of its designs."""

    quantities = (
        Quantity("sparsity", "share of <zeros>", better="lower"),
        Quantity("designs", "designs of the sweep", better=None, has_ceiling=True),
    )

    def judge(self, sweep, store, judged):
        return [row(judged.label, "sparsity", float((judged.values == 0).mean()), judged.measure)]

    def judge_sweep(self, sweep, store):
        return [row("sweep", "designs", float(len(store.designs)), "", ceiling=7.125)]


def row(estimator: str, metric: str, value: float, measure: str, ceiling: float = math.nan) -> ScoreRow:
    return ScoreRow(estimator, metric, value, value, value, ceiling, measure, "", 3, 0, 0, math.nan, math.nan)


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_registered", {})


@pytest.fixture
def sweep(game: Raw, make_sweep: Callable[[Raw], Sweep]) -> Sweep:
    """A sweep of a game with two attributions, one half of zeros and one of nothing else, and no run."""
    game["designs"] = {"fit": {"kind": "subsets", "subsets": 20}}
    game["estimators"] = {
        "all": {"estimator": "difference_in_means"},
        "half": {"estimator": "difference_in_means"},
    }
    sweep = make_sweep(game)
    prepare(sweep).close()
    for label, part in (("all", 1.0), ("half", 0.5)):
        values = np.ones((sweep.task.n, sweep.t), np.float32)
        values[: round(part * sweep.task.n)] = 0
        attributes = Attributes(estimator="difference_in_means", measure="worth", fitted_on=("fit",))
        write_attribution(sweep.paths, label, StoredAttribution(values, attributes))
    return sweep


def shown(table: Any) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(leaderboard(table))
    return console.export_text()


def test_a_registered_metric_is_in_the_file_the_terminal_and_the_report(sweep: Sweep) -> None:
    registry.register("sparsity", Sparsity)
    with RunStore.open(sweep.paths) as store:
        score(sweep, store)
        page = " ".join(report(sweep, store).read_text().split())
    table = read_scores(sweep.paths.scores)
    assert [(one.estimator, one.metric, one.value) for one in as_rows(table)] == [
        ("all", "sparsity", 1.0),
        ("half", "sparsity", 0.5),
        ("sweep", "designs", 1.0),
    ]
    terminal = [line for line in shown(table).splitlines() if "sparsity" in line or line.startswith(("│", "designs"))]
    assert terminal[0].split() == ["sparsity:", "share", "of", "<zeros>", "(lower", "is", "better)"]
    assert [line.strip("│").split()[0] for line in terminal[1:]] == ["half", "all", "designs:", "sweep"]
    other = page[page.index("Other scores") :]
    assert "share of &lt;zeros&gt;" in other
    assert other.index("0.500") < other.index("1.000") < other.index("designs of the sweep") < other.index("7.125")
    assert other.count("Lower is better.") == 1
    assert "Higher is better." not in other


def test_an_array_of_anybody_is_judged_by_it(sweep: Sweep, tmp_path: Any) -> None:
    registry.register("sparsity", Sparsity)
    np.save(tmp_path / "mine.npy", np.zeros((sweep.task.n, sweep.t)))
    with RunStore.open(sweep.paths) as store:
        (only,) = as_rows(judge(sweep, store, tmp_path / "mine.npy"))
    assert (only.estimator, only.metric, only.value) == ("mine", "sparsity", 1.0)


def test_without_it_its_rows_are_still_shown_last_by_their_name(sweep: Sweep) -> None:
    registry.register("sparsity", Sparsity)
    with RunStore.open(sweep.paths) as store:
        table = score(sweep, store)
        registry._registered.clear()
        page = report(sweep, store).read_text()
    assert "sparsity" in shown(table)
    assert "<h3>sparsity</h3>" in page


def test_a_row_that_is_none_of_its_quantities_is_refused(sweep: Sweep) -> None:
    class Stray(Metric):
        quantities = (Quantity("a", "a"),)

        def judge(self, sweep, store, judged):
            return [row(judged.label, "b", 1.0, judged.measure)]

    registry.register("stray", Stray)
    with (
        RunStore.open(sweep.paths) as store,
        pytest.raises(DataError, match=r"Stray gave a row of 'b', its quantities are \['a'\]"),
    ):
        score(sweep, store)


@pytest.mark.parametrize(
    ("name", "metric", "said"),
    [
        ("lds", Sparsity, "metric 'lds': there is one of that name already"),
        ("mine", type("Mine", (Metric,), {"quantities": (Quantity("lds", "x"),)}), "'lds' is one of the metric 'lds'"),
        ("mine", object, "expected a subclass of Metric"),
        ("mine", type("Mine", (Metric,), {}), "expected a subclass of Metric that has quantities"),
    ],
)
def test_what_cannot_be_a_metric_is_refused(name: str, metric: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry.register(name, metric)
    assert registry._registered == {}


def test_an_installed_package_offers_one(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("sparsity", "somewhere:Sparsity", "counterfactory.metrics")
    monkeypatch.setattr(EntryPoint, "load", lambda self: Sparsity)
    monkeypatch.setattr(registry.plugins, "offered", lambda group: (entry,) if group == entry.group else ())
    registry._found.cache_clear()
    try:
        assert list(registry.quantities())[-2:] == ["sparsity", "designs"]
        with pytest.raises(ConfigError, match="there is one of that name"):
            registry.register("sparsity", Metric)
    finally:
        registry._found.cache_clear()


def test_ours_are_there_in_order_and_each_is_found_where_it_is_said_to_be() -> None:
    assert list(registry.quantities()) == [
        *("lds", "slope", "explained_variance", "spread_lds", "loo_correlation", "seed_check", "detection_auc"),
        *("removal_best_area", "removal_worst_area"),
    ]
    places = [metric.place for metric in registry.metrics()]
    assert places == sorted(set(places))
