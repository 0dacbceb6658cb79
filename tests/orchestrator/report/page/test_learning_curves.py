"""What more runs would bring: a picture and a sentence, where a learning curve was measured."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orchestrator.report.data import LearningLine, ReportData
from orchestrator.report.page import learning_curves
from orchestrator.report.page.html import render
from orchestrator.report.page.shown_score import ShownScore

Make = Callable[..., ReportData]

CURVE = LearningLine(
    estimator="datamodel",
    queries=12,
    runs=np.array([500, 1000, 4000]),
    measured=np.array([[0.2, 0.3, 0.4], [0.18, 0.28, 0.37], [0.22, 0.32, 0.43]]),
    ahead=np.array([4000, 6000, 8000]),
    expected=np.array([[0.4, 0.45, 0.5], [0.38, 0.42, 0.45], [0.42, 0.48, 0.56]]),
    ceiling=(0.7, 0.6, 0.9),
    more=4000,
    gain=(1.25, 1.1, 1.4),
    sentence="another 4,000 runs would bring the held-out correlation from 0.40 to about 0.50 (0.45 to 0.56)",
)


def test_it_is_shown_with_what_it_says_of_the_lds(make: Make) -> None:
    scores = make().scores.copy()
    scores.loc[(scores["estimator"] == "datamodel") & (scores["metric"] == "lds"), ["value", "low", "high"]] = (
        *(0.41, 0.41, 0.41),
    )
    page = " ".join(render(make(scores=scores, learning_curves=(CURVE,))).split())
    assert "Would more runs help?" in page
    assert "Another 4,000 runs would bring the LDS from 0.41 to about 0.51 (0.45 to 0.57)." in page
    assert "Learning curve of datamodel: 500 runs 0.20; 1,000 runs 0.30; 4,000 runs 0.40; another 4,000 runs" in page
    assert "the mean over 12 queries" in page
    assert "approach 0.70 (0.60 to 0.90)" in page


def test_without_a_curve_nothing_is_said(html: str) -> None:
    assert "Would more runs help?" not in html


@pytest.mark.parametrize("value", [-0.1, math.nan, None])
def test_without_a_useful_lds_the_curves_own_sentence_stands(value: Any) -> None:
    lds = None if value is None else ShownScore(value, value, value, math.nan)
    assert learning_curves.sentence(CURVE, lds) == "A" + CURVE.sentence[1:]


def test_the_relative_errors_of_lds_and_gain_add_in_squares_and_nothing_exceeds_one() -> None:
    then = learning_curves.grown(ShownScore(0.4, 0.36, 0.44, math.nan), CURVE)
    assert then.value == pytest.approx(0.5)
    assert then.low == pytest.approx(0.5 * (1 - math.hypot(0.1, 1 - 1.1 / 1.25)))
    assert then.high == pytest.approx(0.5 * (1 + math.hypot(0.1, 1.4 / 1.25 - 1)))
    full = learning_curves.grown(ShownScore(0.9, 0.85, 0.95, math.nan), CURVE)
    assert full.value == full.high == 1


def test_an_estimator_that_is_not_scored_and_one_that_predicts_nothing_are_drawn(make: Make) -> None:
    nothing = replace(CURVE, estimator="other", measured=-CURVE.measured, expected=np.zeros((3, 3)))
    html = render(make(learning_curves=(CURVE, nothing)))
    assert html.count("Another 4,000 runs would bring the LDS") == 1
    assert html.count("Another 4,000 runs would bring the held-out correlation") == 1
    assert html.count('role="img" aria-label="Learning curve') == 2
