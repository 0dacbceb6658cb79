"""The estimators: what each needs, in which units it answers, its options."""

from __future__ import annotations

import inspect
import sys

from estimators.contract import NEEDS, Estimator
from estimators.registry import find
from orchestrator.catalog.entry import Entry, Option, first_paragraph, paragraphs
from orchestrator.catalog.options import options_of
from orchestrator.designs import registry as designs

MEASURE = Option(
    "measure", "one of the configuration's `measures`", "the first of them", "the output that is attributed"
)


def entry(name: str) -> Entry:
    """Return one estimator. Raises ConfigError where there is none of that name."""
    return of_class(name, find(name))


def of_class(name: str, estimator: type[Estimator]) -> Entry:
    """Return an estimator that a configuration names so."""
    facts = (
        ("needs", _needs(estimator)),
        ("designs", ", ".join(f"`{kind}`" for kind in _serving(estimator)) or "none"),
        ("units", _units(estimator)),
    )
    return Entry(name, _summary(estimator), tuple(paragraphs(estimator)), facts, (MEASURE, *options_of(estimator)))


def summary(name: str) -> str:
    """Return one sentence on an estimator: what its file says, else what its class says."""
    return _summary(find(name))


def _summary(estimator: type[Estimator]) -> str:
    return first_paragraph(inspect.getdoc(sys.modules[estimator.__module__])) or next(paragraphs(estimator))


def _needs(estimator: type[Estimator]) -> str:
    """Return what it looks at whatever its options, and whether some of them ask for more."""
    always = [words for need, words in NEEDS.items() if need in estimator.needs]
    more = ["more with some options"] if estimator.needed is not Estimator.needed else []
    return ", ".join([*always, *more]) or "nothing but the task"


def _serving(estimator: type[Estimator]) -> list[str]:
    """Return the kinds of designs that meet one of its needs."""
    return [kind for kind, design in designs.loadable().items() if design.serves & estimator.needs]


def _units(estimator: type[Estimator]) -> str:
    if estimator.in_units:
        return "those of the measure"
    own = estimator.claims_units is not Estimator.claims_units
    return (
        "those of the measure with some options, of its own with others"
        if own
        else "its own: only order and ratios count"
    )
