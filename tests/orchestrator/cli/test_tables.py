import io
import json
import math
import re
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console, RenderableType

from estimators.registry import BUILT_IN
from orchestrator.cli import tables
from orchestrator.forecast.attribution_time import AttributionForecast
from orchestrator.forecast.cost import DesignForecast, Forecast, StageForecast
from workers.measures import HIGHER_IS_BETTER, LOWER_IS_BETTER


def text(view: RenderableType, width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(view)
    return console.export_text()


def row(estimator: str, value: float, metric: str = "lds", ceiling: float = 0.8) -> dict[str, object]:
    return {
        "estimator": estimator,
        "metric": metric,
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "ceiling": ceiling,
        "measure": "margin",
        "design": "heldout",
        "queries": 8,
        "subsets": 100,
        "seeds": 3,
        "train_seconds": 130.0,
        "attribute_seconds": math.nan,
        "ceiling_low": ceiling - 0.1,
        "ceiling_high": ceiling + 0.1,
        "share": value / ceiling,
        "share_low": value / ceiling - 0.1,
        "share_high": value / ceiling + 0.1,
    }


def test_the_leaderboard_is_a_table_a_metric_the_best_first() -> None:
    table = pd.DataFrame(
        [
            row("retraining", 0.7, "seed_check"),
            row("b", 0.5, "loo_correlation", math.nan),
            row("a", 0.2),
            row("b", 0.4),
            row("c", math.nan),
            row("high", 0.9, "removal_best_area", math.nan),
            row("low", 0.1, "removal_best_area", math.nan),
        ]
    )
    shown = text(tables.leaderboard(table))
    lines = [line for line in shown.splitlines() if "│ margin" in line]
    assert [line.split()[1] for line in lines] == ["b", "a", "c", "b", "retraining", "low", "high"]
    assert [cell.strip() for cell in lines[0].split("│")[3:7]] == [
        "0.400",
        "0.300 to 0.500",
        "50% (40% to 60%)",
        "2 min 10 s",
    ]
    titles = [
        line.split(":")[0]
        for line in shown.splitlines()
        if re.match(r"\w+: (?!regime)[a-z]", line) and "margin:" not in line
    ]
    assert titles == ["lds", "loo_correlation", "seed_check", "removal_best_area"]
    assert shown.count("lower is better") == 1
    assert "nan" not in shown


def test_the_ceiling_is_said_with_its_interval_or_that_there_was_nothing_to_find() -> None:
    shown = text(tables.leaderboard(pd.DataFrame([row("a", 0.4)])))
    assert "margin: noise ceiling 0.800, 95% interval 0.700 to 0.900" in shown
    nothing = {**row("a", 0.02, ceiling=0.1), "ceiling_low": 0.0, "share": math.nan}
    shown = text(tables.leaderboard(pd.DataFrame([nothing])))
    assert "nothing to find" in shown
    assert "%)" not in shown


def test_rows_say_what_they_can_be_told_from() -> None:
    best = {**row("a", 0.5), "ahead_of_next": 0.1, "ahead_of_next_low": 0.05, "ahead_of_next_high": 0.15}
    next_ = {**row("b", 0.4), "ahead_of_next": 0.01, "ahead_of_next_low": -0.05, "ahead_of_next_high": 0.07}
    next_ |= {"behind_best": 0.1, "behind_best_low": 0.05, "behind_best_high": 0.15}
    last = {**row("c", 0.39), "behind_best": 0.11, "behind_best_low": -0.01, "behind_best_high": 0.2}
    shown = text(tables.leaderboard(pd.DataFrame([best, next_, last])))
    cells = [[cell.strip() for cell in line.split("│")[5:7]] for line in shown.splitlines() if "│ margin" in line]
    assert cells == [["-", ">"], ["<", "≈"], ["≈", "-"]]
    assert shown.count("told from the best") == 1
    assert "told from" not in text(tables.leaderboard(pd.DataFrame([row("a", 0.5)])))


def test_a_ceiling_without_shares_is_a_column_of_its_own() -> None:
    known = {**row("retraining", 0.7, "seed_check"), "share": math.nan, "ceiling_low": math.nan}
    (line,) = [line for line in text(tables.leaderboard(pd.DataFrame([known]))).splitlines() if "│ margin" in line]
    assert [cell.strip() for cell in line.split("│")[3:6]] == ["0.700", "0.600 to 0.800", "0.800"]


def test_a_whole_row_fits_into_120_columns() -> None:
    judged = {**row("difference_in_means", -0.0232), "attribute_seconds": 113.0}
    apart = {f"{what}{end}": -0.1 for what in ("behind_best", "ahead_of_next") for end in ("", "_low", "_high")}
    shown = text(tables.leaderboard(pd.DataFrame([{**judged, **apart}])), 120)
    (line,) = [line for line in shown.splitlines() if "difference_in_means" in line]
    for cell in ("margin", "-0.023", "-0.123 to 0.077", "-3% (-13% to 7%)", "2 min 10 s", "1 min 53 s"):
        assert cell in line, cell


@pytest.mark.parametrize("width", [120, 80])
def test_nothing_of_the_leaderboard_is_cut(width: int) -> None:
    """The longest names that come with the library, and the longest numbers."""
    estimator, measure = (max(names, key=len) for names in (BUILT_IN, [*HIGHER_IS_BETTER, *LOWER_IS_BETTER]))
    longest = {"measure": measure, "train_seconds": 3599.0, "attribute_seconds": 359_000.0}
    rows = [
        {**row(estimator, -0.7531, name), **longest} for name in ("lds", "removal_worst_area", "loo_correlation")
    ] + [{**row(estimator, 0.1234), **longest, "measure": "probability"}]
    shown = text(tables.leaderboard(pd.DataFrame(rows)), width)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    cells = (estimator, measure, "probability", "-0.753", "-0.853 to -0.653", "0.123", "59 min 59 s", "99 h 43 min")
    if width == 120:
        assert [cell for cell in cells if cell not in shown] == []
    else:  # folded, and whole all the same
        letters = "".join("".join(line.split("│")[1:2]).strip() for line in shown.splitlines())
        assert letters.count(estimator) == 4
    assert shown.count("0.800") >= 2


def test_a_name_is_never_markup() -> None:
    shown = text(tables.leaderboard(pd.DataFrame([{**row("[red]a", 0.1, "[b]mine"), "measure": "[i]m"}])))
    assert all(name in shown for name in ("[red]a", "[b]mine", "[i]m"))


def test_an_empty_leaderboard_says_so() -> None:
    assert "no scores" in text(tables.leaderboard(pd.DataFrame()))


def test_records_are_json_without_nan() -> None:
    records = tables.records(pd.DataFrame([row("a", 0.2), row("b", math.inf)]))
    parsed = json.loads(json.dumps(records, allow_nan=False))
    assert parsed[0]["attribute_seconds"] is None
    assert parsed[1]["value"] is None
    assert parsed[1]["queries"] == 8


@pytest.mark.parametrize(
    ("unknown", "whole"),
    [
        ("", "21 s (9.5 s to 56 s), with 2 packs at once"),
        ("was not through", "at least 21 s without the rest of influence, with 2 packs at once"),
    ],
)
def test_what_is_not_known_of_attributions_is_not_left_out_of_the_whole(unknown: str, whole: str) -> None:
    timed = AttributionForecast("influence", 2.0, unknown)
    stages = (StageForecast("scores", 4.0), StageForecast("the report", 1.0))
    made = Forecast(
        (DesignForecast("fit", 40, 6.0, 0.1),), 2, 6.0, 4.0, 12.0, 10**6, 0, attributions=(timed,), stages=stages
    )
    line = tables.forecast_line(made)
    assert f"40 runs, {whole}" in line
    assert ("attributions at least 2.0 s" in line) is bool(unknown)
    assert ", scores 4.0 s, the report 1.0 s; up to" in line


def test_what_nobody_foresaw_is_said_to_be_left_out() -> None:
    made = Forecast((DesignForecast("fit", 40, 6.0, 0.1),), 2, 6.0, 4.0, 12.0, 10**6, 0)
    line = tables.forecast_line(made)
    assert "14 s (6.0 s to 42 s) without attributions, scores and the report, with" in line
    assert "scores 0" not in line
    late = tuple(StageForecast(stage, 0.0, "was not through in that time") for stage in ("scores", "the report"))
    made = replace(made, attributions=(AttributionForecast("random", 1.0),), stages=late)
    assert made.left_out == ("scores", "the report")
    assert "scores and the report: was not through in that time" in tables._forecast_notes(made, "margin")
