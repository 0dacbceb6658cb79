"""What the two ends of an attribution are called: which examples are good for a query, where anybody knows."""

from __future__ import annotations

from estimators.scores.per_example import Better
from orchestrator.config.schema import Config
from workers.errors import ConfigError
from workers.measures import direction


def declared_better(config: Config) -> Better:
    """Return which values of a measure of the task's own are good, where the configuration says so."""
    scores = config.scores
    declared = [section.better for section in (scores.detection, scores.removal) if section and section.better]
    return declared[0] if declared else None


def ends_of(config: Config, measure: str) -> tuple[tuple[str, str], int]:
    """Return what the two ends of an attribution of a measure are called, and the sign that puts the first one high."""
    try:
        return ("helpful", "harmful"), direction(measure, declared_better(config))
    except ConfigError:
        return ("raises", "lowers"), 1
