"""What a sweep will cost, from a few runs that were trained for it: the rest is arithmetic."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from orchestrator.execution.resources import expected_slots
from orchestrator.forecast.attribution_time import AttributionForecast
from orchestrator.forecast.standard_error import ExpectedErrors
from orchestrator.forecast.trial_runs import TrialRuns
from orchestrator.store.durable import write_atomically
from orchestrator.store.side_files import read_json
from orchestrator.sweeps.plan import DesignPlan
from orchestrator.sweeps.sweep import Sweep
from workers.machine import cores
from workers.wording import duration

PACK_SECONDS = 1.5
"""What a pack should take: long beside the cost of scheduling and committing it, short beside a person's patience."""
SMALLEST_PACK, LARGEST_PACK = 8, 4096
PACK_OVERHEAD, RUN_OVERHEAD = 0.01, 2.5e-5
"""Driver's time a pack and a run: drawing, sending, hashing, writing."""
RAY_SECONDS, RAY_LEAST, RAY_MOST = 8.0, 2.0, 30.0
"""What starting Ray and its first worker takes, about, at least and at most: that is known only by doing it."""
REMOVAL = "removal curves"
"""What their runs are called among the designs of a forecast; no design can have that name."""


ERRORS = ("standard_error", "utility_error")
SCORES, REPORT = "scores", "the report"
"""What `run` does at last."""
NOT_TRIED = "was not tried"


@dataclass(frozen=True)
class DesignForecast:
    """One design."""

    design: str
    runs: int
    seconds: float
    """Worker time of all its runs."""
    standard_error: float
    """To expect of one attribution from this design, in units of the first measure; NaN where none is made from it alone."""
    utility_error: float = math.nan
    """To expect of one example's effect on the utility, the mean over the queries, which a stopping criterion watches."""


@dataclass(frozen=True)
class StageForecast:
    """A stage that comes after the attributions: scores, or the report."""

    stage: str
    seconds: float
    unknown: str = ""
    """Why nobody knows; empty where it was foreseen."""


@dataclass(frozen=True)
class Forecast:
    """The sweep."""

    designs: tuple[DesignForecast, ...]
    slots: int
    seconds: float
    """Time on the wall from a worker's first step to the last training; what comes on top is in `total`."""
    low: float
    high: float
    """Ends of its 95% interval."""
    bytes: int
    """Upper bound of what the runs, their records and checkpoints, and gradients that are kept, take on disk."""
    failed: int
    """Trial runs that failed."""
    failure: str = ""
    """Why the first of them did."""
    pack: str = ""
    """How large a pack by time is, and why; empty for one that was given."""
    seeds_matter: bool = True
    """False where two trainings on one subset, with different seeds, gave the same outputs bit by bit."""
    attributions: tuple[AttributionForecast, ...] | None = None
    """What each estimator takes; None where none was timed."""
    stages: tuple[StageForecast, ...] = (StageForecast(SCORES, 0.0, NOT_TRIED), StageForecast(REPORT, 0.0, NOT_TRIED))
    """What the stages after the attributions take."""

    @property
    def ray_start(self) -> float:
        """Time that starting Ray and its first worker takes, about."""
        return RAY_SECONDS

    @property
    def total(self) -> tuple[float, float, float]:
        """Time of Ray's start, the trainings, and what is known of the attributions, the scores and the report; and the ends of
        its 95% interval.

        What is not in it is `left_out`.
        """
        known = sum(one.seconds for one in self.attributions or ()) + sum(one.seconds for one in self.stages)
        starts = (RAY_SECONDS, RAY_LEAST, RAY_MOST)
        trainings = (self.seconds, self.low, self.high)
        middle, low, high = (start + training for start, training in zip(starts, trainings, strict=True))
        return middle + known, low + known / 2, high + 2 * known

    @property
    def left_out(self) -> tuple[str, ...]:
        """What `run` takes beyond `total`, by name: nobody knows how long."""
        stages = tuple(one.stage for one in self.stages if one.unknown)
        if self.attributions is None:
            return ("attributions", *stages)
        return (*(f"the rest of {one.estimator}" for one in self.attributions if one.unknown), *stages)

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold; a standard error that is not known is None."""
        made = asdict(self)
        for design in made["designs"]:
            design |= {key: None for key in ERRORS if math.isnan(design[key])}
        return made

    @classmethod
    def from_json(cls, made: dict[str, Any]) -> Forecast:
        """Return the forecast that `to_json` gave. Raises ValueError, TypeError or KeyError for anything else."""
        designs = [{**one, **{key: math.nan for key in ERRORS if one.get(key) is None}} for one in made["designs"]]
        return TypeAdapter(Forecast).validate_python({**made, "designs": designs})


def pack_by_time(trial: TrialRuns, plans: Mapping[str, DesignPlan]) -> int:
    """Return how many runs a pack should hold: by time, not by count; a power of two where runs are many."""
    longest = max(trial.seconds_at(plan.epoch_size) for plan in plans.values())
    wanted = 2 ** round(math.log2(max(PACK_SECONDS / max(longest, 1e-6), 1)))
    most = max(plan.runs for plan in plans.values()) // (4 * cores())  # several packs for every core
    return int(min(max(wanted, SMALLEST_PACK), max(SMALLEST_PACK, most), LARGEST_PACK))


def forecast(sweep: Sweep, plans: Mapping[str, DesignPlan], trial: TrialRuns, bytes_on_disk: int) -> Forecast:
    """Return what the sweep will take on the resources that its configuration asks for."""
    slots = expected_slots(sweep.config.ray)
    designs = []
    for name, plan in plans.items():
        errors = trial.errors.get(name, ExpectedErrors())
        seconds = plan.runs * trial.seconds_at(plan.epoch_size)
        designs.append(DesignForecast(name, plan.runs, seconds, errors.attribution, errors.utility))
    if (removal := sweep.config.scores.removal) is not None:
        runs = removal.trainings
        left = sweep.task.n * (1 - float(np.mean(removal.fractions)))
        designs.append(DesignForecast(REMOVAL, runs, runs * trial.seconds_at(left), math.nan))
    overhead = sum(PACK_OVERHEAD * plan.packs + RUN_OVERHEAD * plan.runs for plan in plans.values())
    work = sum(design.seconds for design in designs) / slots
    reach = trial.uncertainty()
    return Forecast(
        tuple(designs),
        slots,
        trial.start + overhead + work,
        overhead + work * max(0.0, 1 - reach),  # a worker that was up before needs no start
        2 * trial.start + overhead + work * (1 + reach),
        bytes_on_disk,
        trial.failed,
        trial.failure,
        seeds_matter=trial.seeds_matter,
    )


def why_pack(pack: int, plans: Mapping[str, DesignPlan], trial: TrialRuns) -> str:
    """Return how large a pack by time is, and why."""
    longest = max(trial.seconds_at(plan.epoch_size) for plan in plans.values())
    return (
        f"{pack} runs: the longest kind takes {duration(longest)} a run here, a pack should take about "
        f"{duration(PACK_SECONDS)}, between {SMALLEST_PACK} and {LARGEST_PACK} runs, and every core several"
    )


def keep_forecast(sweep: Sweep, made: Forecast) -> None:
    """Keep a forecast in the sweep's folder, for the report to compare with what happened."""
    write_atomically(sweep.paths.forecast, json.dumps(made.to_json(), indent=1).encode())


def read_forecast(sweep: Sweep) -> Forecast | None:
    """Return the forecast that the folder keeps, if any. Raises StoreError where the file is damaged."""
    remedy = "delete it, and the report compares what happened with no forecast"
    return read_json(sweep.paths.forecast, remedy, Forecast.from_json)
