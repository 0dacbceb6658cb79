import math

import pytest

from orchestrator.report.page.shown_score import ShownScore, scale_of


def test_a_ceiling_is_drawn_where_it_can_be_told_from_zero():
    score = ShownScore(0.45, -0.1, 0.9, 0.9, ceiling_low=0.1, ceiling_high=1.0)
    assert (score.drawn_ceiling, score.nothing_to_find) == (0.9, False)
    assert ShownScore(0.45, -0.1, 0.9, 0.9).drawn_ceiling == 0.9  # its interval is unknown
    nothing = ShownScore(0.05, -0.1, 0.1, 0.1, ceiling_low=0.0, ceiling_high=0.2)
    assert nothing.nothing_to_find
    assert math.isnan(nothing.drawn_ceiling)


def test_a_score_knows_whether_it_covers_zero():
    assert ShownScore(0.45, -0.1, 0.9, 0.9).covers_zero
    assert not ShownScore(0.45, float("nan"), float("nan"), 1.0).covers_zero


def test_everything_is_inside_the_scale_and_so_is_zero():
    scale = scale_of([ShownScore(0.5, 0.4, 0.6, 0.9), ShownScore(-0.1, math.nan, math.nan, math.nan)])
    assert float(scale.percent(-0.1).rstrip("%")) == pytest.approx(100 * 0.03 / 1.06, abs=0.01)
    assert float(scale.percent(0.9).rstrip("%")) == pytest.approx(100 * 1.03 / 1.06, abs=0.01)
    assert scale_of([]).percent(0) == "50.00%"
