"""The designs: what their runs are good for, whether they can be stopped early or grow, their options."""

from __future__ import annotations

from estimators.registry import loadable
from orchestrator.catalog.entry import Entry, paragraphs
from orchestrator.catalog.options import options_of
from orchestrator.designs.base import Design
from orchestrator.designs.registry import find


def entry(kind: str) -> Entry:
    """Return one kind of design. Raises ConfigError where there is none of that name."""
    design = find(kind)
    others = tuple(paragraphs(design))[1:]
    serves = [f"`{name}`" for name, estimator in loadable().items() if estimator.needs & design.serves]
    facts = (
        ("serves", ", ".join(serves) or _otherwise(design)),
        ("may be stopped early", f"yes, watching `{design.watched_by}` by default" if design.watched_by else "no"),
        ("grows over the same runs by", ", ".join(f"`{key}`" for key in design.growth_keys) or "nothing"),
    )
    return Entry(kind, summary(kind), others, facts, options_of(design, without=("kind",)))


def summary(kind: str) -> str:
    """Return one sentence on a kind of design."""
    return next(paragraphs(find(kind)))


def _otherwise(design: type[Design]) -> str:
    return "no estimator by itself" if design.drawable else "nothing"
