"""The parts on values, forecast and stopping: there when there is something to show, and only then."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orchestrator.report.data import (
    ClassTable,
    DesignHealth,
    Expectation,
    Foretold,
    GroupRow,
    RemovalLine,
    ReportData,
    StopCurve,
    Utilities,
)
from orchestrator.report.page.html import render
from orchestrator.report.text import quantity
from orchestrator.scoring.suspects import Suspects
from orchestrator.scoring.table import ScoreRow, as_table
from workers.errors import DataError
from workers.runs import Queries

Make = Callable[..., ReportData]
HEADINGS = (
    *("What the examples are worth", "Finding the mislabelled ones", "Retrained without them", "Whole groups"),
    *("Most and least valued", "Forecast and fact", "When to stop"),
)


def row(estimator: str, metric: str, value: float, measure: str = "margin") -> tuple[Any, ...]:
    return (estimator, metric, value, value - 0.01, value + 0.01, np.nan, measure, "", 12, 0, 0, 1.0, 0.1)


@pytest.fixture
def valued(make: Make) -> Make:
    """Report data with all of it and no leaderboard; keywords replace fields."""
    n = 60
    worth = np.linspace(-1, 1, n)
    rows = [
        row("shapley", "detection_auc", 0.91),
        row("on_probability", "detection_auc", 0.59, "probability"),
        row("shapley", "removal_best_area", 0.4321),
        row("shapley", "removal_worst_area", 0.8765),
        row("random", "removal_best_area", 0.7),
    ]
    removed = np.array([0, 0.2, 0.4])
    fields: dict[str, Any] = {
        "scores": as_table(ScoreRow(*one) for one in rows),
        "utilities": (
            Utilities("shapley", "margin", worth, worth - 0.1, worth + 0.1),
            Utilities("knn_shapley", "loss", worth, np.full(n, np.nan), np.full(n, np.nan)),
        ),
        "group_effects": (GroupRow("groups", "margin", "seven", 6, 0.125, 0.1, 0.15),),
        "class_effects": (
            ClassTable(
                "groups",
                "loss",
                ("cat", "dog"),
                ("cat", "dog"),
                np.array([[-1.5, 0.25], [0.125, -2.5]]),
                np.array([[0.1, np.nan], [0.02, 0.3]]),
            ),
        ),
        "foretold": (Foretold("mpe", "loss", ("cat", "dog", "eel"), np.arange(3.0), np.arange(3.0), 0.987),),
        "removal": (
            RemovalLine("shapley", "best", "correct", removed, np.array([0.9, 0.7, 0.4]), np.full(3, 0.01)),
            RemovalLine("random", "any", "correct", removed, np.array([0.9, 0.88, 0.85]), np.full(3, np.nan)),
        ),
        "expectations": (
            Expectation("time on the wall", "time", 100.0, 80.0, 120.0, 95.0),
            Expectation("fit: runs", "count", 4000, np.nan, np.nan, 2345),
        ),
        "stopping": (
            StopCurve("fit", "standard_error < 0.02", 0.02, np.array([10, 20]), np.array([np.nan, 0.015]), True),
        ),
    }
    return lambda **changes: make(**{**fields, **changes})


def test_nothing_is_shown_where_there_is_nothing(html: str) -> None:
    assert [heading for heading in HEADINGS if heading in html] == []


def test_everything_is_shown_with_its_interval(valued: Make) -> None:
    page = " ".join(render(valued()).split())
    assert [heading for heading in HEADINGS if heading not in page] == []
    for number in (
        "0.910",
        "correlation 0.987 over 3 groups",
        "0.900 to 0.920",
        "0.590",
        "probability",
        "0.432",
        "0.876",
        "seven",
        "+0.125",
        "2,345",
    ):
        assert number in page, number
    assert "1 min 20 s to 2 min 00 s" in page
    assert "The most valued removed first: shapley from 0.900 to 0.400; random from 0.900 to 0.850" in page
    assert "The least valued removed first" not in page, "no curve has that order"
    assert "Stopping of fit at standard_error &lt; 0.02: 0.015 after 20 runs" in page
    assert "+1.00 (+0.900 to +1.10)" in page
    assert "holds runs only" not in page


def test_effects_of_classes_are_a_table_with_errors_and_colours(valued: Make) -> None:
    page = render(valued())
    table = page[page.index("What each class does to each class: loss") :]
    table = table[: table.index("</table>")]
    cells = re.findall(r"<td.*?</td>", table)
    assert [re.sub("<.*?>", " ", cell).split() for cell in cells] == [
        ["−1.50", "±", "0.10"],
        ["0.25", "±", "–"],
        ["0.12", "±", "0.02"],
        ["−2.50", "±", "0.30"],
    ]
    assert ["var(--up)" in cell for cell in cells] == [True, False, False, True], "a loss is lowered by what helps"
    assert ['"n own"' in cell for cell in cells] == [True, False, False, True]


def test_why_the_margin_finds_more_is_said_where_it_does(valued: Make, make: Make) -> None:
    memorized = Queries("train")
    assert "saturates near 0 and 1" in render(valued(queries=memorized))
    assert "saturates" not in render(valued())
    worse = as_table(
        ScoreRow(*one) for one in (row("a", "detection_auc", 0.5), row("b", "detection_auc", 0.9, "probability"))
    )
    assert "saturates" not in render(valued(queries=memorized, scores=worse))


def test_for_a_loss_the_most_valued_are_those_that_lower_it(valued: Make) -> None:
    page = render(valued())
    by_loss = page[page.index("<h3>knn_shapley</h3>") :]
    assert by_loss.index("−1.00") < by_loss.index("+1.00")
    by_margin = page[page.index("<h3>shapley</h3>") : page.index("<h3>knn_shapley</h3>")]
    assert by_margin.index("+1.00") < by_margin.index("−1.00")


def test_runs_left_out_are_not_to_go(valued: Make) -> None:
    design = DesignHealth("fit", "subsets", "fitting", 400, 300, 0, 80.0, 40.0, 9.95, left_out=100)
    page = render(valued(designs=(design,)))
    assert "(100 left out)" in page
    assert "to go" not in page


def test_values_of_another_shape_are_refused(valued: Make) -> None:
    short = np.zeros(3)
    with pytest.raises(DataError, match=r"utilities\['shapley'\]\.values has shape \(3,\), expected \(60,\)"):
        valued(utilities=(Utilities("shapley", "margin", short, short, short),))


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (95.0, "time", "1 min 35 s"),
        (1234.0, "count", "1,234"),
        (2.5e6, "bytes", "2.5 MB"),
        (0.01234, "number", "0.0123"),
    ],
)
def test_quantities_are_said_in_their_units(value: float, unit: str, said: str) -> None:
    assert quantity(value, unit) == said
    assert quantity(float("nan"), unit) == "–"


def test_suspects_are_named_without_pictures_too(make: Make) -> None:
    found = Suspects("knows", "margin", np.array([7, 3]), np.array([2.0, 1.0]), ("1", None), np.array([True, False]), 5)
    page = render(
        make(scores=as_table([ScoreRow(*row("knows", "detection_auc", 0.9))]), suspects=found, show=None, label=None)
    )
    assert "1 of these 2 are mislabelled, of 5 in all" in page
    assert re.findall(r"(training example \d+)</span>", page) == ["training example 7", "training example 3"]
    assert "+2.00, mislabelled" in page
    assert "+1.00, not mislabelled" in page
