"""Which way a measure is good: a helpful example raises a margin, and lowers a loss."""

from __future__ import annotations

from typing import Literal

from workers.errors import ConfigError

HIGHER_IS_BETTER = frozenset({"margin", "hard_margin", "probability", "correct"})
LOWER_IS_BETTER = frozenset({"loss", "squared_error"})


def direction(measure: str, better: Literal["higher", "lower"] | None = None) -> Literal[1, -1]:
    """Return 1 if higher values of the measure are better, else -1; `better` decides for one that is not known.

    Raises ConfigError for an unknown measure without it, and where the two disagree.
    """
    known = "higher" if measure in HIGHER_IS_BETTER else "lower" if measure in LOWER_IS_BETTER else None
    if known and better and known != better:
        raise ConfigError(f"better: {known} values of {measure!r} are better, found {better!r}")
    if known is None and better is None:
        raise ConfigError(
            f"better: whether higher values of {measure!r} are good is not known; set it to higher or lower"
        )
    return 1 if (known or better) == "higher" else -1
