"""What attributions will take: each estimator is tried for a moment, on what looks like the evidence it will get.

Runs are made up at their full number: the subsets are those of the plan, an output is a sum of effects and noise. Of reference
models one is trained, and an estimator is timed on one query and on some of them; its time grows with the queries in a straight
line, and in proportion to the models. One that foresees its own time is not tried. Whatever is not through in its share of the
time is ended, and said to take longer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from estimators.contract import Estimator
from estimators.evidence import Evidence, Reference, Runs
from estimators.reference_estimator import ReferenceEstimator
from orchestrator.forecast.made_up import LARGEST, made_up_effects, made_up_outputs
from orchestrator.forecast.time_limit import along, some_of, timed, tried
from orchestrator.sweeps.plan import DesignPlan
from orchestrator.sweeps.sweep import Sweep, empty_outputs
from workers.errors import DataError
from workers.packs import PackTrainer
from workers.runs import Queries, Run
from workers.task_hooks import labeller_of

BUDGET_SECONDS, LEAST_SECONDS = 15.0, 0.2
"""What all estimators together may take to be timed, about; and what is left to them where others took longer to be ended."""


@dataclass(frozen=True)
class AttributionForecast:
    """One estimator, by its label in the configuration."""

    estimator: str
    seconds: float
    unknown: str = ""
    """Why it takes longer than that, nobody knows by how much; empty where it was timed to its end."""


def attribution_times(
    sweep: Sweep, plans: Mapping[str, DesignPlan], budget: float = BUDGET_SECONDS
) -> tuple[AttributionForecast, ...]:
    """Return what every estimator of the configuration will take, in this process as in a sweep; nothing is kept."""
    found: list[AttributionForecast] = []
    labels = list(sweep.config.estimators)
    until = time.perf_counter() + budget
    for place, label in enumerate(labels):
        # What the quick ones leave of their shares is for those that come after them.
        share = max(until - time.perf_counter(), LEAST_SECONDS) / (len(labels) - place)
        found.append(_forecast(sweep, plans, label, share))
    return tuple(found)


def _forecast(sweep: Sweep, plans: Mapping[str, DesignPlan], label: str, budget: float) -> AttributionForecast:
    section = sweep.config.estimators[label]
    estimator, measure = section.options, section.measure or sweep.config.measures[0]
    way = _of_models if section.needed & {"gradients", "checkpoints"} else _of_runs
    one = tried(lambda: way(sweep, plans, estimator, measure), budget)
    # Every combination of values that are tuned takes about as long.
    return AttributionForecast(
        label, (one.seconds if one.found is None else one.found) * len(section.candidates), one.unknown
    )


def _of_runs(sweep: Sweep, plans: Mapping[str, DesignPlan], estimator: Estimator, measure: str) -> float:
    fitting = {name: plan for name, plan in plans.items() if plan.design.purpose == "fit"}
    evidence = _evidence(sweep, measure, sweep.queries)
    foreseen = estimator.foresee(
        replace(evidence, runs={name: _to_come(sweep, plan, measure) for name, plan in fitting.items()})
    )
    if foreseen is not None:
        return foreseen
    if sum(plan.runs for plan in fitting.values()) * (sweep.task.n + 4 * sweep.t) > LARGEST:
        raise DataError("its runs are too many to be made up")
    evidence = replace(evidence, runs={name: _made_up(sweep, plan, measure) for name, plan in fitting.items()})
    return timed(lambda: estimator.attribute(evidence))


def _to_come(sweep: Sweep, plan: DesignPlan, measure: str) -> Runs:
    """Return a design's runs, as many as there will be and nothing in them: they take no memory, however many they are."""
    return Runs(
        design=plan.name,
        kind=plan.design.seen_as,
        measure=measure,
        masks=np.broadcast_to(np.False_, (plan.runs, sweep.task.n)),
        outputs=np.broadcast_to(np.float32(0), (plan.runs, sweep.t)),
        subsets=np.arange(plan.runs) // plan.design.seeds,
        repeats=np.arange(plan.runs) % plan.design.seeds,
    )


def _made_up(sweep: Sweep, plan: DesignPlan, measure: str) -> Runs:
    """Return a design's runs with outputs that are sums of the effects of examples, and noise."""
    rng = np.random.default_rng(plan.runs)
    rows = plan.rows(0, plan.runs)
    outputs = made_up_outputs(rows.masks, made_up_effects(sweep.task.n, sweep.t, rng), rng)
    prefixes = plan.design.prefixes(plan.context)
    return Runs(
        design=plan.name,
        kind=plan.design.seen_as,
        measure=measure,
        masks=rows.masks,
        outputs=outputs,
        subsets=rows.subsets,
        repeats=rows.repeats.astype(np.int64),
        permutations=None if prefixes is None else np.arange(plan.runs) // prefixes.steps,
        antithetic=prefixes is not None and prefixes.antithetic,
    )


def _of_models(sweep: Sweep, plans: Mapping[str, DesignPlan], estimator: Estimator, measure: str) -> float:
    looked_at = plans.values() if "checkpoints" in estimator.needed else ()  # others train what they look at
    kept = [plan for plan in looked_at if plan.checkpoint_epochs and plan.design.purpose == "fit"]
    references: tuple[Reference, ...] = ()
    models = 1
    if kept:
        design = kept[0].design
        run = Run(
            0,
            np.arange(sweep.task.n),
            0,
            kept[0].checkpoint_epochs,
            design.order,
            design.normalize,
            optimizer_state=design.keeps_optimizer_state,
        )
        (outcome,) = PackTrainer(sweep.task).train([run], (measure,), sweep.queries)
        references = (Reference(0, outcome.checkpoints, design.order, design.normalize),)
        models = sum(plan.runs for plan in kept)
        if isinstance(estimator, ReferenceEstimator):
            models = estimator.models or models
            estimator = estimator.model_copy(update={"models": None})

    def on(queries: int) -> float:
        some = Queries(sweep.queries.source, tuple(positions[:queries].tolist()))
        evidence = replace(_evidence(sweep, measure, some), t=queries, references=references)
        return timed(lambda: estimator.attribute(evidence))

    source = sweep.task.n if sweep.queries.source == "train" else sweep.task.t
    positions = sweep.queries.take(source)
    foreseen = estimator.foresee(replace(_evidence(sweep, measure, sweep.queries), references=references))
    if foreseen is not None:
        return models * foreseen
    on(1)  # pays for what is done once: imports, compilation
    return models * along(on(1), on(some_of(sweep.t)), sweep.t)


def _evidence(sweep: Sweep, measure: str, queries: Queries) -> Evidence:
    return Evidence(
        n=sweep.task.n,
        t=sweep.t,
        measure=measure,
        task=sweep.task,  # type: ignore[arg-type, unused-ignore]
        queries=queries,
        seed=sweep.config.seed,
        label=labeller_of(sweep.task),
        empty=empty_outputs(sweep, measure),
    )
