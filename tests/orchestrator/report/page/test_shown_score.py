import math

import pytest

from orchestrator.report.page.shown_score import ShownScore, scale_of


def test_a_score_knows_its_part_of_the_ceiling():
    score = ShownScore(0.45, -0.1, 0.9, 0.9)
    assert score.of_ceiling == pytest.approx(0.5)
    assert score.covers_zero
    assert ShownScore(0.45, 0.1, 0.9, float("nan")).of_ceiling != 0
    assert not ShownScore(0.45, float("nan"), float("nan"), 1.0).covers_zero


def test_everything_is_inside_the_scale_and_so_is_zero():
    scale = scale_of([ShownScore(0.5, 0.4, 0.6, 0.9), ShownScore(-0.1, math.nan, math.nan, math.nan)])
    assert float(scale.percent(-0.1).rstrip("%")) == pytest.approx(100 * 0.03 / 1.06, abs=0.01)
    assert float(scale.percent(0.9).rstrip("%")) == pytest.approx(100 * 1.03 / 1.06, abs=0.01)
    assert scale_of([]).percent(0) == "50.00%"
