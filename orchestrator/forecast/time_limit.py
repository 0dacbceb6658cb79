"""Work that is tried to see what it takes, and ended where it takes too long."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import current_thread, main_thread
from typing import Any, Generic, TypeVar

from workers.runs import Failure

Found = TypeVar("Found")


@dataclass(frozen=True)
class Tried(Generic[Found]):
    """What came of a try."""

    found: Found | None
    """What the work returned; None where it did not come to its end."""
    seconds: float
    """Time the work had."""
    unknown: str = ""
    """Why it did not come to its end; empty where it did."""


class _Late(BaseException):
    """The time is over: nobody's own `except Exception` may hear it."""


def tried(work: Callable[[], Found], budget: float) -> Tried[Found]:
    """Do some work for at most `budget` seconds; it is ended as a Ctrl-C would, between two operations.

    No exception of the work comes out: whatever it is, a sweep would say it of the real thing, or not meet it.
    """
    if current_thread() is not main_thread():  # no other one hears the alarm that would end it
        return Tried(None, 0.0, "is timed in the main thread only")
    started = time.perf_counter()
    try:
        with _at_most(budget):
            found = work()
    except _Late:
        return Tried(None, time.perf_counter() - started, "was not through in that time")
    except Exception as error:
        return Tried(None, 0.0, f"could not be tried: {Failure.of(error)}")
    return Tried(found, time.perf_counter() - started)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def some_of(queries: int) -> int:
    """Return on how many of the queries work is timed beside a single one."""
    return min(queries, 1 + math.ceil(queries / 8))


def along(one: float, several: float, queries: int) -> float:
    """Return the time for all queries, in a straight line through that for one of them and that for `some_of` them.

    >>> from orchestrator.forecast.time_limit import along, some_of
    >>> some_of(200), round(along(0.5, 3.0, 200), 1)  # 0.1 s a query, and 0.4 s whatever their number
    (26, 20.4)
    """
    some = some_of(queries)
    slope = max(0.0, several - one) / max(1, some - 1)
    return max(one, several) + slope * (queries - some)
