"""Whether a kept attribution still stands: made by the same estimator, from the rows that are there."""

from __future__ import annotations

import json
from collections.abc import Mapping

from orchestrator.config.schema import EstimatorSection
from orchestrator.store import accounting
from orchestrator.store.attributions import Attributes, read_attributes_of
from orchestrator.store.run_store import RunStore
from orchestrator.store.secret_names import without_secrets
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError


def stamp_of(section: EstimatorSection, measure: str) -> str:
    """Return what decides an attribution beside the runs: estimator, options, measure."""
    return json.dumps([without_secrets(section.resolved())[0], measure], sort_keys=True)


def rows_given(sweep: Sweep, store: RunStore, section: EstimatorSection) -> dict[str, str]:
    """Return the hash over the row hashes of every fitting design that an estimator may use, by design, as they are now."""
    designs, needs = sweep.config.designs, section.options.needed
    used = (name for name in store.designs if designs[name].purpose == "fit" and designs[name].serves & needs)
    return {name: accounting.rows_hash(store, name) for name in used}


def why_stale(kept: Attributes, stamp: str, rows: Mapping[str, str]) -> str:
    """Return why a kept attribution does not stand for what `stamp_of` and `rows_given` say now; empty where it does."""
    if (kept.stamp, kept.rows) == (stamp, rows):
        return ""
    if rows and not kept.rows:
        return "it does not say which rows it was computed from"
    return "it was made in another way" if kept.rows == rows else "its runs changed"


def why_runs_differ(store: RunStore, name: str) -> str:
    """Return why the rows that an attribution was computed from are not those that are there; empty where they are."""
    try:
        kept = read_attributes_of(store.paths, name)
    except StoreError as error:
        return str(error)
    if kept.models and not kept.rows:
        return "it does not say which rows it was computed from"
    changed = [name for name, known in kept.rows.items() if _now(store, name) != known]
    return f"the runs of {', '.join(changed)} changed" if changed else ""


def _now(store: RunStore, design: str) -> str:
    return accounting.rows_hash(store, design) if design in store.designs else ""
