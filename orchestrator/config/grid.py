"""`tune: {damping: [0.01, 0.1]}` of an estimator: the options that are chosen among values, and the grid that these make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

LARGEST = 100
"""Points of a grid: the estimator is computed at each."""


def grid_of(given: Any, beside: Mapping[Any, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the values of every tuned option, by its name; empty where nothing is tuned.

    `beside` are the options that are given themselves. Raises ValueError for what is no list of two distinct values or more,
    for an option that is given beside, and for a grid of too many points.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not given:
        raise ValueError(
            f"tune: expected options, each with a list of values, such as {{damping: [0.01, 0.1]}}, found {given!r}"
        )
    for option, values in given.items():
        if not isinstance(values, list | tuple) or len(values) < 2:
            raise ValueError(f"tune.{option}: expected a list of two values or more, found {values!r}")
        repeated = [value for place, value in enumerate(values) if value in values[:place]]
        if repeated:
            raise ValueError(f"tune.{option}: {repeated[0]!r} is there twice")
        if option in beside:
            raise ValueError(f"tune.{option}: is given beside as {beside[option]!r}; leave one of them out")
    if (size := prod(map(len, given.values()))) > LARGEST:
        raise ValueError(f"tune: makes {size:,} combinations, expected at most {LARGEST}")
    return {str(option): tuple(values) for option, values in given.items()}


def points(grid: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values, the last option's first; a single empty one where there are none."""
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))
