"""Many small pieces of work on the cores of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from workers.machine import cores

Result = TypeVar("Result")


def spread(work: Callable[[int], Result], items: Iterable[int], threads: int | None) -> list[Result]:
    """Run `work` on every item in at most `threads` threads; results in order, the same for any number of threads."""
    count = threads or cores()
    if count == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, items))
