import math

import pytest

from orchestrator.report import text


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "0 s"),
        (0.06, "60 ms"),
        (0.0949, "95 ms"),
        (8.24, "8.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (9600, "2 h 40 min"),
        (math.nan, text.NONE),
    ],
)
def test_duration(seconds, told):
    assert text.duration(seconds) == told


@pytest.mark.parametrize(("value", "told"), [(0.01, "10 ms"), (10, "10 s"), (60, "1 min"), (36000, "10 h")])
def test_tick(value, told):
    assert text.tick(value) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.03124, "+0.0312"), (-27.23, "\u221227.2"), (1234.5, "+1234"), (0.0, "0"), (2e-7, "+2.0e-07"), (math.nan, "–")],
)
def test_signed(value, told):
    assert text.signed(value) == told


@pytest.mark.parametrize(
    ("value", "told"), [(-0.0421, "\u22120.042"), (-0.0001, "0.000"), (0.5, "0.500"), (math.inf, text.NONE)]
)
def test_decimal(value, told):
    assert text.decimal(value) == told


def test_rate_percent_and_count():
    assert text.rate(11.62) == "11.6 / s"
    assert text.rate(0.05) == "3.0 / min"
    assert text.percent(-0.011) == "\u22121%"
    assert text.count(None) == text.NONE
    assert text.count(12345) == "12,345"
