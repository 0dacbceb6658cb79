"""Whether what is kept of gradients, and attributions of queries that came later, are of the configuration that is there.

No estimator's class is imported for that: only options that the configuration gives are compared, and its defaults are not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.config.estimator_section import EstimatorSection
from orchestrator.store.gradients import kept_estimators, kept_networks, read_gradients
from orchestrator.store.query_attributions import list_query_attributions, read_query_attributes
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError

_CHANGE_NOTHING = frozenset({"models", "memory_gb", "store"})
"""Options of every estimator that keeps gradients, which what is kept does not depend on."""


def why_not_standing(sweep: Sweep, n: int) -> list[str]:
    """Return, a line each, what is kept of other options than the configuration's; `n` is the sweep's number of examples.

    What is damaged is passed over.
    """
    return [*_gradients(sweep, n), *_query_attributions(sweep)]


def _gradients(sweep: Sweep, n: int) -> Iterator[str]:
    paths = sweep.paths
    for name in kept_estimators(paths):
        section = sweep.config.estimators.get(name)
        for number in kept_networks(paths, name):
            where = paths.network_gradients(name, number)
            try:
                kept = read_gradients(paths, name, number)
            except StoreError:
                continue
            if kept is not None and (why := _why(kept.identity, section, {"seed": sweep.config.seed, "n": n})):
                yield f"{where}: {why}; `counterfactory attribute {paths.root}` makes what is asked for"


def _query_attributions(sweep: Sweep) -> Iterator[str]:
    for queries, name in list_query_attributions(sweep.paths):
        where = sweep.paths.query_attribution(queries, name)
        try:
            kept = read_query_attributes(sweep.paths, queries, name)
        except StoreError:
            continue
        section = sweep.config.estimators.get(name)
        if why := _why({"estimator": kept.estimator, "options": kept.options}, section, {}):
            yield f"{where}: {why}; attribute the queries again"


def _why(kept: Mapping[str, Any], section: EstimatorSection | None, wanted: Mapping[str, Any]) -> str:
    """Return the first thing that differs, in words; empty where nothing does that is known."""
    if section is None:
        return "the configuration has no such estimator"
    for key, now in {"estimator": section.estimator, **wanted}.items():
        if kept.get(key) != now:
            return f"{key} is {kept.get(key)!r}, expected {now!r}"
    options = kept.get("options", {})
    for option, now in section.given.items():
        # What a mapping holds may be written otherwise than it is kept: text for a number, a tuple for a list.
        comparable = isinstance(now, bool | int | float) and isinstance(options.get(option), bool | int | float)
        comparable |= isinstance(now, str) and isinstance(options.get(option), str)
        if comparable and option not in _CHANGE_NOTHING and options[option] != now:
            return f"{option} is {options[option]!r}, expected {now!r}"
    return ""
