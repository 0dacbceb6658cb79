"""Checks that a configuration's parts fit together on its task, before anything is trained."""

from __future__ import annotations

from estimators.contract import Need
from estimators.reference_estimator import ReferenceEstimator
from estimators.tuning import worded
from orchestrator.attribution.evidence import no_runs_yet
from orchestrator.config.schema import DetectionSection, RemovalSection
from orchestrator.designs import loadable
from orchestrator.sweeps.plan import DesignPlan
from orchestrator.sweeps.roles import fresh_design, refuse_imported, scoring_design, tuning_design
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, UserError, near
from workers.measures import direction
from workers.own_training import gradient_task
from workers.task_hooks import mislabelled


def check(sweep: Sweep) -> None:
    """Raise ConfigError, naming the key, for the first estimator or score that this sweep could not serve.

    A sweep is checked once, however many stages ask, for estimators may build the task's model to find out.
    """
    config = sweep.config.model_copy(update={"pack": "auto"})  # how many runs a pack has is nothing to an estimator
    if config not in sweep.in_memory.checked:
        _check(sweep)
        sweep.in_memory.checked.append(config)


def _check(sweep: Sweep) -> None:
    refuse_imported(sweep)
    differentiable = gradient_task(sweep.task) is not None
    for label, section in sweep.config.estimators.items():
        needs = section.needed
        if "gradients" in needs and not differentiable:
            raise ConfigError(
                f"estimators.{label}: needs gradients, so a DifferentiableTask or one that trains itself; "
                f"the task {sweep.config.task.name!r} is a black box"
            )
        for need in sorted(needs - {"gradients"}):
            if not _served(sweep.plans, need):
                able = " or ".join(kind for kind, one in loadable().items() if need in one.serves and one.drawable)
                with_checkpoints = " with checkpoints" if need == "checkpoints" else ""
                raise ConfigError(
                    f"estimators.{label}: needs a fitting design of kind {able}{with_checkpoints}; add one"
                )
        if section.tune:
            tuning_design(sweep.config, label)
        _check_models(sweep, label)
        _check_named(sweep, label)
        _check_options(sweep, label)
    scoring_design(sweep.config, "lds")
    scoring_design(sweep.config, "loo")
    _check_spread(sweep)
    fresh_design(sweep.config)
    _check_directions(sweep)


def _check_spread(sweep: Sweep) -> None:
    """Refuse to judge the spread over seeds where no subset is trained with two."""
    if sweep.config.scores.spread is None:
        return
    design = scoring_design(sweep.config, "spread")
    if design is None:
        raise ConfigError("scores.spread: needs a scoring design with 2 seeds or more; add one")
    if (seeds := sweep.config.designs[design].seeds) < 2:
        raise ConfigError(
            f"scores.spread: a spread over seeds needs 2 seeds a subset, designs.{design}.seeds is {seeds}"
        )


def _check_directions(sweep: Sweep) -> None:
    """Refuse to detect or to remove by a measure of which nobody said what is good."""
    config = sweep.config
    detection, removal = config.scores.detection, config.scores.removal
    for label, section in config.estimators.items():
        measure = section.measure or config.measures[0]
        judged: dict[str, DetectionSection | RemovalSection] = {}
        if detection is not None and mislabelled(sweep.task) is not None:
            judged["detection"] = detection
        if removal is not None and label in removal.estimators:
            judged["removal"] = removal
        for name, score in judged.items():
            try:
                direction(measure, score.better)
            except ConfigError as error:
                raise ConfigError(f"scores.{name}.{error}") from error


def _check_models(sweep: Sweep, label: str) -> None:
    """Refuse more reference models than the designs that keep checkpoints train."""
    plans = [plan for plan in sweep.plans.values() if plan.design.purpose == "fit" and plan.checkpoint_epochs]
    there = sum(plan.runs for plan in plans if "checkpoints" in plan.design.serves)
    for options in (one.options for one in sweep.config.estimators[label].candidates):
        if (
            isinstance(options, ReferenceEstimator)
            and "checkpoints" in options.needed
            and (options.models or 0) > there
        ):
            raise ConfigError(
                f"estimators.{label}.models: expected at most {there}, the reference models that keep checkpoints, "
                f"found {options.models}"
            )


def _check_named(sweep: Sweep, label: str) -> None:
    """Refuse an estimator's `design` (or `full`) that is no fitting design."""
    fitting = [name for name, plan in sweep.plans.items() if plan.design.purpose == "fit"]
    for options in (one.options for one in sweep.config.estimators[label].candidates):
        for key in options.naming_designs:
            named = getattr(options, key)
            if named is not None and named not in fitting:
                why = "is kept for scoring" if named in sweep.plans else "does not exist"
                raise ConfigError(f"estimators.{label}.{key}: fitting design {named!r} {why}: {near(named, fitting)}")


def _check_options(sweep: Sweep, label: str) -> None:
    """Let the estimator itself refuse what it can know to be wrong before anything is trained."""
    section = sweep.config.estimators[label]
    measure = section.measure or sweep.config.measures[0]
    for candidate in section.candidates:
        try:
            candidate.options.check(no_runs_yet(sweep, measure))
        except UserError as error:
            at = f" (tune: {worded(candidate.values)})" if candidate.values else ""
            raise ConfigError(f"estimators.{label}: {error}{at}") from error


def _served(plans: dict[str, DesignPlan], need: Need) -> bool:
    """Say whether a fitting design meets a need of an estimator."""
    able = [plan for plan in plans.values() if need in plan.design.serves and plan.design.purpose == "fit"]
    return any(plan.checkpoint_epochs or need != "checkpoints" for plan in able)
