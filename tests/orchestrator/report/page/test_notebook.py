"""The fragments of a notebook: the numbers are there, nothing of a sweep becomes markup, nothing reaches outside."""

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from orchestrator.report.page.notebook import scores_html, sweep_html
from orchestrator.report.page.templates import resource
from orchestrator.scoring.table import ScoreRow, as_table
from workers.errors import DataError

ROW = ScoreRow(
    "trak", "lds", 0.25, 0.125, 0.375, 0.5, "margin", "heldout", 8, 100, 3, 130.0, math.nan, 0.4, 0.6, 0.5, 0.2, 0.8
)
EVIL = '<script>alert("&")</script>'
TABLE = as_table(
    [
        ROW,
        replace(ROW, estimator="datamodel", value=0.4, low=0.3, high=0.45, share=0.8, share_low=0.6, share_high=0.9),
        replace(
            ROW, estimator="broken", value=math.nan, low=math.nan, high=math.nan, share=math.nan, share_low=math.nan
        ),
        replace(ROW, metric="removal_best_area", value=0.75, ceiling=math.nan),
    ]
)


def cells(html: str) -> list[list[str]]:
    """The text of every row's cells."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [[re.sub(r"<.*?>", "", c, flags=re.DOTALL).strip() for c in re.findall(r"<t[hd].*?</t[hd]>", r, re.DOTALL)]
            for r in rows]  # fmt: skip


def test_the_leaderboard_has_the_numbers_the_best_first() -> None:
    html = scores_html(TABLE)
    assert cells(html) == [
        ["estimator", "measure", "value", "95% interval", "", "ceiling", "of ceiling", "trained", "attributed"],
        ["datamodel", "margin", "0.400", "0.300 to 0.450", "", "0.500", "80% (60% to 90%)", "2 min 10 s", "–"],
        ["trak", "margin", "0.250", "0.125 to 0.375", "", "0.500", "50% (20% to 80%)", "2 min 10 s", "–"],
        ["broken", "margin", "–", "–", "", "0.500", "–", "2 min 10 s", "–"],
        ["estimator", "measure", "value", "95% interval", "", "trained", "attributed"],
        ["trak", "margin", "0.750", "0.125 to 0.375", "", "2 min 10 s", "–"],
    ]
    assert "linear datamodeling score" in html
    assert html.count("margin: noise ceiling 0.500, 95% interval 0.400 to 0.600") == 1
    assert html.count("lower is better") == 1


def test_rows_say_what_they_can_be_told_from() -> None:
    apart = {"ahead_of_next": 0.1, "ahead_of_next_low": 0.05, "ahead_of_next_high": 0.15}
    html = scores_html(
        as_table([replace(ROW, **apart), replace(ROW, estimator="b", value=0.1, behind_best=0.1, behind_best_low=-0.1)])
    )
    assert [row[4:6] for row in cells(html)] == [["best", "next"], ["-", "&gt;"], ["≈", "-"]]
    assert html.count("not told apart") == 1


def test_a_bar_is_where_its_number_is() -> None:
    html = scores_html(as_table([replace(ROW, value=1.0, low=0.5, high=1.0, ceiling=1.0)]))
    at = {name: float(re.search(rf'"{name}" x1="([\d.]+)%"', html)[1]) for name in ("zero", "interval", "ceiling")}
    dot = float(re.search(r'cx="([\d.]+)%"', html)[1])
    assert at["ceiling"] == dot
    assert at["interval"] == pytest.approx((at["zero"] + dot) / 2, abs=0.01)
    assert 0 < at["zero"] < 5
    assert 95 < dot < 100
    assert scores_html(TABLE).count("<circle") == 3, "one a number that is known"


def test_a_sweep_shows_its_runs_and_its_scores() -> None:
    html = sweep_html("digits", "/runs/digits", [("fit", "subsets", "fit", 1500, 100, 400)], TABLE)
    assert cells(html)[1] == ["fit", "subsets", "fit", "1,500", "100", "400", ""]
    assert 'class="cf-done" style="width:75.00%"' in html
    assert 'class="cf-lost" style="width:5.00%"' in html
    assert "/runs/digits" in html
    assert "0.250" in html


def test_without_runs_and_scores_it_says_so() -> None:
    html = sweep_html("digits", "here", [("fit", "subsets", "fit", 0, 0, 0)], as_table(()))
    assert "width:0.00%" in html
    assert "No scores yet." in html
    assert "no design has runs yet" in sweep_html("digits", "here", [], as_table(()))


def test_names_never_become_markup_and_the_fragment_is_well_formed() -> None:
    row = replace(ROW, estimator=EVIL, metric=EVIL, measure=EVIL)
    html = sweep_html(EVIL, EVIL, [(EVIL, EVIL, EVIL, 1, 0, 0)], as_table([row]))
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#34;&amp;&#34;)&lt;/script&gt;") == 8
    ElementTree.fromstring(html)


def test_it_loads_nothing_and_its_style_touches_nothing_else() -> None:
    html = scores_html(TABLE)
    assert not re.search(r"https?:|url\(|@import|src=|href=|<script| id=", html)
    rules = re.findall(r"([^{}]+)\{[^{}]*\}", re.sub(r"@media [^{]+\{", "", resource("notebook.css")))
    assert len(rules) > 10
    for selector in (part for rule in rules for part in rule.split(",")):
        assert ".counterfactory-view" in selector, selector


def test_a_table_without_its_columns_is_refused() -> None:
    with pytest.raises(DataError, match="lacks the columns low"):
        scores_html(TABLE.drop(columns=["low"]))
