"""numba's compiler as this package uses it: cached on disk, without the interpreter lock, IEEE arithmetic (NaN stays NaN)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile on first use; later processes load the machine code from the cache."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
