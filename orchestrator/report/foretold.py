"""Whole groups left out: what attributions foretell of them, against what retraining without them measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from estimators.retraining_based.leave_group_out import MeasuredGroups, group_effects
from estimators.values.utility import utility_runs
from orchestrator.attribution.evidence import load_runs
from orchestrator.report.class_effects import group_name
from orchestrator.report.data import Foretold
from orchestrator.store.attributions import StoredAttribution
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.examples import Examples
from orchestrator.sweeps.sweep import Sweep

LEAST = 3
"""Groups below which a correlation says nothing."""


def foretold(
    sweep: Sweep, store: RunStore, examples: Examples, answers: Mapping[str, StoredAttribution]
) -> Iterator[Foretold]:
    """Yield, for every attribution that was fitted on none of the runs, its sums over the groups beside the measured effects.

    Nothing where no leave_group_out design and no full one has finished runs.
    """
    for out, full in _designs(sweep, store):
        measured: dict[str, MeasuredGroups] = {}
        for label, answer in answers.items():
            measure = answer.attributes.measure
            if answer.attributes.fitted_on:
                continue
            if measure not in measured:
                runs = (utility_runs(load_runs(sweep, store, design, measure)) for design in (out, full))
                measured[measure] = group_effects(*runs)
            found = measured[measure]
            if len(found.size) < LEAST:
                continue
            names = tuple(group_name(sweep, examples, (out,), int(first)) for first in found.first)
            worth = answer.values.mean(axis=1, dtype=np.float64)
            predicted = np.bincount(found.group, worth, len(found.size)).astype(np.float64)
            actual = found.effects.values[:, 0].astype(np.float64)
            with np.errstate(invalid="ignore"):
                correlation = float(np.corrcoef(predicted, actual)[0, 1])
            yield Foretold(label, measure, names, predicted, actual, correlation)


def _designs(sweep: Sweep, store: RunStore) -> list[tuple[str, str]]:
    """Return the first leave_group_out design all of whose groups have been left out, and the full one it is paired with."""
    by_kind: dict[str, list[str]] = {}
    for name, section in sweep.config.designs.items():
        if name in store.designs and len(store.finished(name)):
            by_kind.setdefault(section.seen_as, []).append(name)
    outs, fulls = by_kind.get("leave_group_out", []), by_kind.get("full", [])
    whole = [name for name in outs if len(store.finished(name)) == store.designs[name].runs]
    return [(whole[0], fulls[0])] if whole and fulls else []
