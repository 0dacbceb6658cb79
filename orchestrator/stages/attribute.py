"""Stage three: every estimator's attribution, from the finished runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from estimators.contract import Attribution, Evidence
from orchestrator import accounts
from orchestrator.attributions import list_attributions, read_attribution, write_attribution
from orchestrator.config import EstimatorSection
from orchestrator.evidence import gather
from orchestrator.jsonable import plain
from orchestrator.store import RunStore
from orchestrator.sweep import Sweep
from workers.errors import CounterfactoryError


@dataclass(frozen=True)
class Attributed:
    """What became of one estimator in this call."""

    estimator: str
    seconds: float
    models: int
    kept: bool
    """True when a former call's answer still stood, so that nothing was computed."""


def attribute(
    sweep: Sweep, store: RunStore, on_done: Callable[[Attributed], None] = lambda done: None, *, again: bool = False
) -> list[Attributed]:
    """Compute and store every configured attribution whose options or runs changed (all of them with `again`)."""
    evidence: dict[str, Evidence] = {}
    stored = set(list_attributions(sweep.paths))
    results = []
    for label, section in sweep.config.estimators.items():
        measure = section.measure or sweep.config.measures[0]
        stamp = _stamp(store, section, measure)
        if label in stored and not again and _stands(sweep, label, stamp):
            attributes = read_attribution(sweep.paths, label)[3]
            result = Attributed(label, attributes["seconds"], attributes["models"], kept=True)
        else:
            if measure not in evidence:
                evidence[measure] = gather(sweep, store, measure)
            result = _compute(sweep, store, label, section, evidence[measure], stamp)
        on_done(result)
        results.append(result)
    return results


def _compute(
    sweep: Sweep, store: RunStore, label: str, section: EstimatorSection, evidence: Evidence, stamp: str
) -> Attributed:
    started = time.perf_counter()
    try:
        made = section.options.attribute(evidence)
    except CounterfactoryError as error:
        raise type(error)(f"estimators.{label}: {error}") from error
    seconds = time.perf_counter() - started
    _refuse_ill_formed(label, made, evidence)
    attributes: dict[str, Any] = {
        "estimator": section.estimator,
        "options": section.options.model_dump(mode="json"),
        "measure": evidence.measure,
        "needs": sorted(section.options.needs),
        "fitted_on": list(made.fitted_on),
        "models": made.models,
        "seconds": seconds,
        "train_seconds": accounts.train_seconds(store, _trained_for(sweep, section, made)),
        "stamp": stamp,
        "degrees_of_freedom": made.degrees_of_freedom,
        "details": dict(made.details),
    }
    write_attribution(
        sweep.paths,
        label,
        made.values,
        bias=made.bias,
        standard_error=made.standard_error,
        utility=made.utility,
        utility_standard_error=made.utility_standard_error,
        attributes=plain(attributes),
    )
    return Attributed(label, seconds, made.models, kept=False)


def _trained_for(sweep: Sweep, section: EstimatorSection, made: Attribution) -> set[str]:
    """Return the designs whose training the attribution cost: the runs it was fitted on, and its reference models."""
    references = {name for name, plan in sweep.plans.items() if plan.checkpoint_epochs and plan.design.purpose == "fit"}
    return set(made.fitted_on) | (references if "checkpoints" in section.options.needs else set())


def _stamp(store: RunStore, section: EstimatorSection, measure: str) -> str:
    """Return what decides an attribution: estimator, options, measure and the fitting runs as they are now."""
    fitting = tuple(name for name, layout in store.designs.items() if layout.purpose == "fit")
    return json.dumps([section.resolved(), measure, accounts.digest(store, fitting)], sort_keys=True)


def _stands(sweep: Sweep, label: str, stamp: str) -> bool:
    return bool(read_attribution(sweep.paths, label)[3].get("stamp") == stamp)


def _refuse_ill_formed(label: str, made: Attribution, evidence: Evidence) -> None:
    """Hold an estimator, ours or a third party's, to the contract: (n, t), finite."""
    if made.values.shape != (evidence.n, evidence.t):
        raise CounterfactoryError(
            f"estimators.{label}: returned shape {made.values.shape}, expected ({evidence.n}, {evidence.t})"
        )
    bad = int((~np.isfinite(made.values)).sum())
    if bad:
        raise CounterfactoryError(f"estimators.{label}: {bad} of {made.values.size} attributions are not finite")
