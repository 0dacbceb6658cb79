"""What the two ends of an attribution are called: which examples are good for a query, where anybody knows."""

from __future__ import annotations

from orchestrator.config.schema import Config
from workers.errors import ConfigError
from workers.measures import direction


def ends_of(config: Config, measure: str) -> tuple[tuple[str, str], int]:
    """Return what the two ends of an attribution of a measure are called, and the sign that puts the first one high."""
    told = [
        section.better for section in (config.scores.detection, config.scores.removal) if section and section.better
    ]
    try:
        return ("helpful", "harmful"), direction(measure, told[0] if told else None)
    except ConfigError:
        return ("raises", "lowers"), 1
