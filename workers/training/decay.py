"""Which parameters have no weight decay."""

from __future__ import annotations

from collections.abc import Collection

from workers.name_patterns import matching
from workers.recipe import Recipe


def undecayed(recipe: Recipe, names: Collection[str]) -> frozenset[str]:
    """Return those of the parameters' names that match a pattern of the recipe's `no_decay` (`*` spans dots).

    Names are those of `named_parameters`, frozen ones included. Raises ConfigError for a pattern that matches none of them.
    """
    return matching(names, recipe.no_decay, "recipe.no_decay")
