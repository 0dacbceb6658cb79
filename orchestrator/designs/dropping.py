"""A size said by what is dropped: another way than by what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DESCRIPTION = "examples dropped, how many (at least 1) or what fraction (below 1)"


def one_size(section: Any, kept: str, default: float) -> Any:
    """Return a design's section in which one of `drop` and the key `kept` says the size, the default of `kept` if neither did.

    Raises ValueError where both do.
    """
    if not isinstance(section, Mapping):
        return section
    drop, given = section.get("drop"), section.get(kept)
    if drop is None:
        return {**section, kept: default if given is None else given}
    if given is not None:
        raise ValueError(f"drop: {drop!r} and {kept}: {given!r} both say the size; give one")
    return {**section, kept: None}


def check_drop(drop: int | float | None) -> int | float | None:
    """Raise ValueError for what is neither a number of examples nor a fraction of them."""
    fits = drop is None or (drop >= 1 if isinstance(drop, int) else 0 < drop < 1)
    if not fits or isinstance(drop, bool):
        raise ValueError(f"{drop!r} is neither a number of examples, at least 1, nor a fraction between 0 and 1")
    return drop


def dropped(drop: int | float, n: int) -> float:
    """Return how many of `n` examples are dropped: a number as it is, a fraction of n without rounding."""
    return float(drop) if isinstance(drop, int) else drop * n
