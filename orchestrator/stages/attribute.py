"""Stage three: every estimator's attribution, from the finished runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from estimators.contract import Attribution, Estimator
from estimators.evidence import Evidence
from estimators.reference_estimator import ReferenceEstimator
from estimators.registry import package_of
from orchestrator.attribution.evidence import gather, reference_designs, why_few_references, with_models
from orchestrator.attribution.gradients import SweepGradients, store_of, why_lacking
from orchestrator.attribution.numbers_of_models import Answer, Answers
from orchestrator.attribution.standing import rows_given, source_of, stamp_of, why_stale
from orchestrator.attribution.tuning import tuned
from orchestrator.attribution.workspace import SweepWorkspace
from orchestrator.config.estimator_section import EstimatorSection
from orchestrator.report.class_effects import class_table, lines
from orchestrator.store import accounting
from orchestrator.store.attributions import (
    Attributes,
    StoredAttribution,
    forget_failure,
    keep_failure,
    list_attributions,
    read_attributes_of,
    remove_attribution,
    write_attribution,
)
from orchestrator.store.run_store import RunStore
from orchestrator.store.secret_names import without_secrets
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.task_record import read_record
from workers.errors import CounterfactoryError, StoreError, near
from workers.runs import Failure
from workers.wording import duration


@dataclass(frozen=True)
class Attributed:
    """What became of one estimator in this call."""

    estimator: str
    """Its label in the configuration."""
    seconds: float
    models: int
    kept: bool
    """True when a former call's answer still stood, so that nothing was computed."""
    stale: str = ""
    """Why a former call's answer did not stand, and was computed anew."""
    notes: tuple[str, ...] = ()
    """What the estimator tells of how good a new answer is, a line each."""
    error: str = ""
    """Why there is no answer; the other estimators go on."""


@dataclass(frozen=True)
class _Origin:
    """What decides an attribution; see `standing`."""

    stamp: str
    rows: Mapping[str, str]
    source: Mapping[str, str]
    made_under: str = ""
    """Id of what the task was, in provenance.json; empty where the task was not built."""

    @property
    def key(self) -> str:
        """Tell apart the unfinished work of one origin from that of others."""
        return json.dumps([self.stamp, self.rows, self.source], sort_keys=True)


def attribute(
    sweep: Sweep,
    store: RunStore,
    on_done: Callable[[Attributed], None] = lambda done: None,
    *,
    again: bool = False,
    say: Callable[[str], None] = lambda line: None,
    before_task: Callable[[], str] = lambda: "",
) -> list[Attributed]:
    """Compute and store every configured attribution whose options or runs changed (all of them with `again`).

    `say` is told what an estimator wants to be known before it begins long work. The task is built only where an estimator that
    needs gradients is to be computed; `before_task` is called before that, and returns the id of what the task is; what
    it raises ends the stage.
    """
    evidence: dict[str, Evidence] = {}
    asked = [_asked(sweep, store, label, section, again=again) for label, section in sweep.config.estimators.items()]
    answers = Answers({one.label: one.section for one in asked if one.standing is None and not one.section.tune})
    results = []
    for one in asked:
        if one.standing is not None:
            result = Attributed(one.label, one.standing.seconds, one.standing.models, kept=True)
        else:
            measure, origin = one.measure, one.origin
            if measure not in evidence:
                evidence[measure] = gather(sweep, store, measure)

            def workspace(part: str, one: _Asked = one) -> SweepWorkspace:
                return SweepWorkspace(sweep.paths, one.label, one.origin.key, sweep.config.ray, say, part)

            gradients = SweepGradients(sweep.paths, store_of(sweep.config, one.label), sweep.data_hash, say, again)
            given = replace(evidence[measure], workspace=workspace(""), gradients=gradients)
            if one.section.needed & {"gradients", "checkpoints"}:
                origin = replace(origin, made_under=before_task())
                given = with_models(given, sweep, store)
            answer = partial(_answer, sweep, store, one, given, answers, workspace)
            result = replace(_try(sweep, store, replace(one, origin=origin), given, answer), stale=one.stale)
            if not result.error:
                workspace("").clear()
        on_done(result)
        results.append(result)
    return results


@dataclass(frozen=True)
class _Asked:
    """One estimator of the configuration, and whether it has an answer that stands."""

    label: str
    section: EstimatorSection
    measure: str
    origin: _Origin
    standing: Attributes | None
    """The answer of a former call that still stands."""
    stale: str
    """Why that of a former call does not."""


def _asked(sweep: Sweep, store: RunStore, label: str, section: EstimatorSection, *, again: bool) -> _Asked:
    measure = section.measure or sweep.config.measures[0]
    origin = _Origin(stamp_of(section, measure), rows_given(sweep, store, section), source_of(section))
    stored = not again and label in list_attributions(sweep.paths)
    standing = read_attributes_of(sweep.paths, label) if stored else None
    stale = ""
    if standing is not None:
        stale = why_stale(standing, origin.stamp, origin.rows, origin.source)
        stale = stale or why_lacking(sweep.config, sweep.paths, label, standing.models)
    return _Asked(label, section, measure, origin, None if stale else standing, stale)


_Ask = Callable[[], tuple[Estimator, Answer]]
"""Computes an attribution; returns the estimator, with the options that were chosen where some are tuned, and its answer."""


def _answer(
    sweep: Sweep,
    store: RunStore,
    asked: _Asked,
    evidence: Evidence,
    answers: Answers,
    workspace: Callable[[str], SweepWorkspace],
) -> tuple[Estimator, Answer]:
    if not asked.section.tune:
        return asked.section.options, answers.answer(asked.label, evidence)
    chosen, found = tuned(sweep, store, asked.label, evidence, workspace)
    return chosen.options, found


def _try(sweep: Sweep, store: RunStore, asked: _Asked, evidence: Evidence, answer: _Ask) -> Attributed:
    """Compute one attribution; where that fails in any way, an answer from other runs must not stand in for it.

    Raises StoreError where runs that are read on the way are damaged: that is no failure of the estimator, and its answer stays.
    """
    label = asked.label
    forget_failure(sweep.paths, label)
    try:
        return _compute(sweep, store, asked, evidence, answer)
    except StoreError:
        raise
    except Exception as error:
        remove_attribution(sweep.paths, label)
        reason = str(error) + why_few_references(sweep, store, asked.section, len(evidence.references))
        if not isinstance(error, CounterfactoryError):
            failure = Failure.of(error)
            where = keep_failure(sweep.paths, label, failure.traceback)
            reason = f"{failure.kind}: {failure.message} (the traceback is in {where})"
        return Attributed(label, 0.0, 0, kept=False, error=f"estimators.{label}: {reason}")


def _compute(sweep: Sweep, store: RunStore, asked: _Asked, evidence: Evidence, answer: _Ask) -> Attributed:
    label, section, origin = asked.label, asked.section, asked.origin
    options, found = answer()
    made = found.made
    curve = made.findings.learning_curve
    beside = 0.0 if curve is None else curve.seconds  # what more runs would bring is not what this cost
    seconds = found.seconds - beside
    _refuse_ill_formed(made, evidence)
    attributes = Attributes(
        estimator=section.estimator,
        package=package_of(section.estimator),
        source=origin.source,
        claims_units=options.claims_units,
        options=without_secrets(options.model_dump(mode="json"))[0],
        measure=evidence.measure,
        needs=tuple(sorted(options.needed)),
        fitted_on=tuple(made.fitted_on),
        models=made.models,
        seconds=seconds,
        train_seconds=_train_seconds(sweep, store, options, made, len(evidence.references)),
        stamp=origin.stamp,
        provenance=origin.made_under,
        rows=origin.rows,
        degrees_of_freedom=made.degrees_of_freedom,
        details={**made.details, **made.findings.to_json()},
    )
    write_attribution(
        sweep.paths,
        label,
        StoredAttribution(
            made.values, attributes, made.bias, made.standard_error, made.utility, made.utility_standard_error
        ),
    )
    return Attributed(label, seconds, made.models, kept=False, notes=_notes(sweep, label, made, evidence.measure))


def _notes(sweep: Sweep, label: str, made: Attribution, measure: str) -> tuple[str, ...]:
    """Return what an estimator says of itself: its summary, how its options were chosen, what more runs would bring, its
    effects by class."""
    found = made.findings
    tuning = "" if found.tuning is None else f"{found.tuning.sentence}; {duration(found.tuning.seconds)}"
    more = "" if found.learning_curve is None else found.learning_curve.sentence
    table = class_table(sweep, read_record(sweep).examples, label, measure, made.fitted_on, found)
    by_class = () if table is None else lines(table)
    return tuple(line for line in (found.summary, tuning, more, *by_class) if line)


def _train_seconds(sweep: Sweep, store: RunStore, options: Estimator, made: Attribution, references: int) -> float:
    """Return what the training cost that an attribution used: of the runs that it was fitted on or that chose its options, and
    of its reference models.

    Of `references` models an estimator may have looked at the first few: they count for their share.
    """
    fitted = accounting.train_seconds(store, made.fitted_on)
    if "checkpoints" not in options.needed:
        return fitted
    others = set(reference_designs(sweep, store)) - set(made.fitted_on)
    of_models = isinstance(options, ReferenceEstimator) and references
    return fitted + accounting.train_seconds(store, others) * (made.models / references if of_models else 1.0)


def _refuse_ill_formed(made: Attribution, evidence: Evidence) -> None:
    """Hold an estimator, ours or a third party's, to the contract: every array's shape, values that are finite."""
    n, t = evidence.n, evidence.t
    for name, shape in (
        ("values", (n, t)),
        ("bias", (t,)),
        ("standard_error", (n, t)),
        ("utility", (n,)),
        ("utility_standard_error", (n,)),
    ):
        array = getattr(made, name)
        if array is not None and array.shape != shape:
            raise CounterfactoryError(f"returned {name} of shape {array.shape}, expected {shape}")
    unknown = [name for name in made.fitted_on if name not in evidence.runs]
    if unknown:
        known = near(unknown[0], list(evidence.runs))
        raise CounterfactoryError(f"returned fitted_on {unknown[0]!r}, which it was given no runs of: {known}")
    bad = int((~np.isfinite(made.values)).sum())
    if bad:
        raise CounterfactoryError(f"{bad} of {made.values.size} attributions are not finite")
