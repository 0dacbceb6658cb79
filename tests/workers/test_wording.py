import math

import pytest

from workers.wording import UNKNOWN, duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1.0, "0 s"),
        (0, "0 s"),
        (0.0004, "0 s"),
        (0.0006, "1 ms"),
        (0.06, "60 ms"),
        (0.0994, "99 ms"),
        (0.0996, "0.1 s"),
        (8.24, "8.2 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (100, "1 min 40 s"),
        (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.7, "1 h 00 min"),
        (9600, "2 h 40 min"),
        (7199, "2 h 00 min"),
        (90_061, "25 h 01 min"),
        (359_969, "99 h 59 min"),
        (359_971, "4 d 04 h"),
        (86_400 * 1234.5, "1,234 d 12 h"),
        (math.nan, UNKNOWN),
        (math.inf, UNKNOWN),
    ],
)
def test_a_duration_is_said_with_its_two_leading_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said
