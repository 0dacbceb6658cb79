import math

import pytest

from orchestrator.report import text


@pytest.mark.parametrize(("value", "said"), [(0.01, "10 ms"), (10, "10 s"), (60, "1 min"), (36000, "10 h")])
def test_tick(value, said):
    assert text.tick(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.03124, "+0.0312"), (-27.23, "\u221227.2"), (1234.5, "+1234"), (0.0, "0"), (2e-7, "+2.0e-07"), (math.nan, "–")],
)
def test_signed(value, said):
    assert text.signed(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(-0.0421, "\u22120.042"), (-0.0001, "0.000"), (0.5, "0.500"), (math.inf, text.NONE)]
)
def test_decimal(value, said):
    assert text.decimal(value) == said


def test_rate_percent_and_count():
    assert text.rate(11.62) == "11.6 / s"
    assert text.rate(0.05) == "3.0 / min"
    assert text.percent(-0.011) == "\u22121%"
    assert text.count(None) == text.NONE
    assert text.count(12345) == "12,345"
