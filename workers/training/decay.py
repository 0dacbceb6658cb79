"""Which parameters have no weight decay."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from workers.errors import ConfigError, near
from workers.recipe import Recipe


def undecayed(recipe: Recipe, names: Collection[str]) -> frozenset[str]:
    """Return those of the parameters' names that match a pattern of the recipe's `no_decay` (`*` spans dots).

    Names are those of `named_parameters`, frozen ones included. Raises ConfigError for a pattern that matches none of them.
    """
    found: set[str] = set()
    for pattern in recipe.no_decay:
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            raise ConfigError(
                f"recipe.no_decay: pattern {pattern!r} matches no parameter of the module; {near(pattern, list(names))}"
            )
        found |= matched
    return frozenset(found)
