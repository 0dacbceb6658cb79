"""Whether a kept attribution still stands: made by the same estimator, from the rows that are there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from orchestrator.config.estimator_section import EstimatorSection
from orchestrator.designs import Design
from orchestrator.store import accounting
from orchestrator.store.attributions import Attributes, read_attributes_of
from orchestrator.store.run_store import RunStore
from orchestrator.store.secret_names import without_secrets
from orchestrator.sweeps.sources import changed_files, hashes_of
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError


def stamp_of(section: EstimatorSection, measure: str) -> str:
    """Return what decides an attribution beside the runs: estimator, options, measure."""
    return json.dumps([without_secrets(section.resolved())[0], measure], sort_keys=True)


def rows_given(sweep: Sweep, store: RunStore, section: EstimatorSection) -> dict[str, str]:
    """Return the hash over the row hashes of every fitting design that an estimator may use, by design, as they are now."""
    designs = sweep.config.designs
    fitting = (name for name in store.designs if designs[name].purpose == "fit")
    used = (name for name in fitting if designs[name].serves & section.needed or _chooses(section, name, designs[name]))
    return {name: accounting.rows_hash(store, name) for name in used}


def _chooses(section: EstimatorSection, name: str, design: Design) -> bool:
    """Say whether a fitting design chooses an estimator's tuned options."""
    return bool(section.tune) and section.tune_on in (None, name) and "subsets" in design.serves


def source_of(section: EstimatorSection) -> dict[str, str]:
    """Return the hash of every source file of an estimator of one's own, by its path from the first one's folder."""
    return hashes_of(section.estimator, section.folder) if section.is_own else {}


def why_stale(kept: Attributes, stamp: str, rows: Mapping[str, str], source: Mapping[str, str]) -> str:
    """Return why a kept attribution does not stand for what is there, which the functions above tell; empty where it does."""
    if (kept.stamp, kept.rows, kept.source) == (stamp, rows, source):
        return ""
    if kept.stamp == stamp and kept.source != source:
        was, now = kept.source.items(), source.items()
        return _changed_source(sorted({name for name, _ in was ^ now}))
    if rows and not kept.rows:
        return "it does not say which rows it was computed from"
    return "it was made in another way" if kept.rows == rows else "its runs changed"


def why_changed(sweep: Sweep, store: RunStore, name: str) -> str:
    """Return why an attribution is not of the rows that are there, or not made by the source that is there; empty where it is.

    None of its code is run, nor looked for anywhere but in the files that it was made of.
    """
    try:
        kept = read_attributes_of(store.paths, name)
    except StoreError as error:
        return str(error)
    if kept.models and not kept.rows:
        return "it does not say which rows it was computed from"
    changed = [name for name, known in kept.rows.items() if _now(store, name) != known]
    if changed:
        return f"the runs of {', '.join(changed)} changed"
    section = sweep.config.estimators.get(name)
    if section is None or section.estimator != kept.estimator or section.file is None or not section.file.is_file():
        return ""
    files = changed_files(section.file, kept.source)
    return _changed_source(files) if files else ""


def _changed_source(files: Sequence[str]) -> str:
    return f"its source {', '.join(files)} changed"


def _now(store: RunStore, design: str) -> str:
    return accounting.rows_hash(store, design) if design in store.designs else ""
