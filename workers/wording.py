"""How numbers are said to people, on every page and every terminal alike."""

from __future__ import annotations

import math

UNKNOWN = "\u2013"
"""What stands where a number is not known."""


def duration(seconds: float) -> str:
    """Return a time with its two leading units: 60 ms, 8.2 s, 59 s, 3 min 05 s, 2 h 40 min, 4 d 04 h; a dash when unknown.

    Each is rounded to its last unit, which never shows as many as the next larger unit has.
    """
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 0.0995:
        milliseconds = round(seconds * 1000)
        return f"{milliseconds} ms" if milliseconds > 0 else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 100 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24:,} d {hours % 24:02d} h"
