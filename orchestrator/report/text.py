"""Numbers as a reader wants them."""

from __future__ import annotations

import math

from workers.wording import UNKNOWN, duration

MINUS = "\u2212"
NONE = UNKNOWN


def decimal(value: float, digits: int = 3) -> str:
    """Return a number with fixed decimals and a true minus sign; a dash for NaN and infinity."""
    if not math.isfinite(value):
        return NONE
    text = f"{abs(value):.{digits}f}"
    return MINUS + text if value < 0 and float(text) != 0 else text


def signed(value: float) -> str:
    """Return a number with its sign and three significant digits, such as an attribution: +0.0312."""
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{abs(value):.{digits}f}" if digits <= 5 else f"{abs(value):.1e}"
    return ("+" if value > 0 else MINUS) + text


def percent(fraction: float) -> str:
    """Return a fraction as whole percent."""
    return f"{fraction:.0%}".replace("-", MINUS) if math.isfinite(fraction) else NONE


def share(value: float, low: float, high: float) -> str:
    """Return a share in whole percent, with its interval where there is one."""
    return f"{percent(value)} ({percent(low)} to {percent(high)})" if math.isfinite(low) else percent(value)


def count(value: int | None) -> str:
    """Return an integer with its thousands grouped."""
    return NONE if value is None else f"{value:,}"


def quantity(value: float, unit: str) -> str:
    """Return a value in its unit: time (seconds), count, bytes, or a number with three significant digits."""
    if not math.isfinite(value):
        return NONE
    if unit == "time":
        return duration(value)
    if unit == "count":
        return f"{value:,.0f}"
    return f"{value / 1e6:,.1f} MB" if unit == "bytes" else f"{value:.3g}"


def tick(seconds: float) -> str:
    """Return a round time in one unit, for an axis: 10 ms, 10 s, 1 min, 10 h."""
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{seconds / size:,g} {unit}"
    return f"{seconds * 1000:g} ms"


def rate(value: float) -> str:
    """Return runs a second, or runs a minute where a second sees less than one."""
    if not math.isfinite(value):
        return NONE
    return f"{value:,.1f} / s" if value >= 1 else f"{value * 60:,.1f} / min"
