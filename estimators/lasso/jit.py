"""numba's compiler as this package uses it: cached on disk, without the interpreter lock, IEEE arithmetic (NaN stays NaN)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


def compiled(function: Function) -> Function:
    """Compile on first use; later processes load the machine code from the cache."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[int], Result], items: Iterable[int], threads: int | None) -> list[Result]:
    """Run `work` on every item in at most `threads` threads; results in order, the same for any number of threads."""
    count = threads or cores()
    if count == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, items))
