"""numba's compiler as this package uses it: cached on disk, without the interpreter lock, IEEE arithmetic (NaN stays NaN)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile on first use; later processes load the machine code from the cache."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))
