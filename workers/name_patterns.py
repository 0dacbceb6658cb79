"""Parameters that a user names by patterns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from workers.errors import ConfigError, near


def matching(names: Collection[str], patterns: Sequence[str], key: str) -> frozenset[str]:
    """Return those of the parameters' names that match a pattern, as file names do (`*`, `?`, `[...]`; `*` spans dots).

    Raises ConfigError, naming the key, for a pattern that matches none of them.
    """
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            raise ConfigError(
                f"{key}: pattern {pattern!r} matches no parameter of the module; {near(pattern, list(names))}"
            )
        found |= matched
    return frozenset(found)
