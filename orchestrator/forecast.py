"""What a sweep will cost, said before anything is spent: a few runs are trained here and the rest is arithmetic."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from orchestrator.designs.permutations import Permutations
from orchestrator.noise import Trial, expected_error
from orchestrator.sweeps.plan import DesignPlan
from orchestrator.sweeps.sweep import Sweep
from workers.loading import build_task
from workers.machine import cores
from workers.packed.calibration import plan_of
from workers.packs import train_pack
from workers.runs import Run
from workers.task import DifferentiableTask

BUDGET_SECONDS = 6.0
"""What the calibration may cost, about; half of it finds how long runs take, half how uncertain values will be."""
PACK_SECONDS = 1.5
"""What a pack should take: long beside the cost of scheduling and committing it, short beside a person's patience."""
SMALLEST_PACK, LARGEST_PACK = 8, 4096
PACK_OVERHEAD, RUN_OVERHEAD = 0.01, 2.5e-5
"""Driver's time a pack and a run: drawing, sending, hashing, writing."""
KERNELS_START = 1.0
"""What a worker needs at most to load compiled kernels."""
REMOVAL = "removal curves"
"""What their runs are called among the designs of a forecast; no design can have that name."""


@dataclass(frozen=True)
class Calibration:
    """Measured on this machine: one core, this task."""

    sizes: tuple[int, ...]
    """Subset sizes of the timed runs."""
    seconds: tuple[float, ...]
    """Time a run of each took, trained in a pack."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Standard error to expect of one value, by design; NaN where none is known."""
    failed: int = 0
    """Calibration runs that failed."""
    start: float = 0.0
    """Time a worker needs once: to build the task, and what its first runs take longer than later ones."""

    def seconds_at(self, size: float) -> float:
        """Return the time of a run on `size` examples, by the straight line through what was measured."""
        if len(set(self.sizes)) == 1:
            return float(np.mean(self.seconds))
        slope, start = np.polyfit(self.sizes, self.seconds, 1)
        return float(max(start + slope * size, min(self.seconds) / 2))

    def uncertainty(self) -> float:
        """Return the relative half-width of a time's 95% interval: scatter around the line, and not below 20%."""
        predicted = np.array([self.seconds_at(size) for size in self.sizes])
        scatter = np.std(np.asarray(self.seconds) / predicted, ddof=1) if len(self.seconds) > 2 else 0.3
        return float(max(0.2, 2 * scatter))


@dataclass(frozen=True)
class DesignForecast:
    """One design."""

    design: str
    runs: int
    seconds: float
    """Worker time of all its runs."""
    standard_error: float
    """To expect of one attribution from this design, in units of the first measure; NaN where none is made from it alone."""


@dataclass(frozen=True)
class Forecast:
    """The sweep."""

    designs: tuple[DesignForecast, ...]
    slots: int
    seconds: float
    """Time on the wall from a worker's first step to the last training; starting Ray comes on top."""
    low: float
    high: float
    """Ends of its 95% interval."""
    bytes: int
    """Upper bound on disk."""
    failed: int
    """Calibration runs that failed."""

    def plain(self) -> dict[str, Any]:
        """Return plain data; a standard error that is not known is None."""
        plain = asdict(self)
        for design in plain["designs"]:
            design["standard_error"] = None if math.isnan(design["standard_error"]) else design["standard_error"]
        return plain

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Forecast:
        """Return the forecast that `plain` describes."""
        designs = [
            DesignForecast(
                **{**one, "standard_error": math.nan if one["standard_error"] is None else one["standard_error"]}
            )
            for one in plain["designs"]
        ]
        return cls(**{**plain, "designs": tuple(designs)})


def calibrate(sweep: Sweep, plans: Mapping[str, DesignPlan], budget: float = BUDGET_SECONDS) -> Calibration:
    """Train a few packs in this process, on one thread as a worker would; nothing of it is kept."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timed = _timed(sweep, plans, budget / 2)
        fitting = [plan for plan in plans.values() if plan.design.purpose == "fit" and plan.design.kind != "full"]
        errors = {}
        for plan in fitting:
            runs = int(budget / 2 / len(fitting) / max(timed.seconds_at(mean_size(plan)), 1e-6))
            errors[plan.name] = expected_error(Trial(sweep, plans, plan, runs))
        return replace(timed, errors=errors)
    finally:
        torch.set_num_threads(threads)


def _timed(sweep: Sweep, plans: Mapping[str, DesignPlan], budget: float) -> Calibration:
    """Time packs of the sizes that the designs have."""
    if isinstance(sweep.task, DifferentiableTask):
        plan_of(sweep.task, "cpu")  # measured once on a machine, not once a worker
    started = time.perf_counter()
    sizes = sorted({max(1, round(mean_size(plan))) for plan in plans.values()})
    sizes = sizes if len(sizes) < 3 else [sizes[0], sizes[len(sizes) // 2], sizes[-1]]
    build_task(sweep.spec)
    _pack(sweep, sizes[0], 2, first=0)  # pays for compilation and first touches
    first = time.perf_counter() - started
    timed: list[tuple[int, float]] = []
    count, turn, failed = 4, 1, 0
    while turn == 1 or (time.perf_counter() - started < budget and turn < 12):
        for size in sizes:
            clock = time.perf_counter()
            failed += _pack(sweep, size, count, first=turn * 1000)
            timed.append((size, (time.perf_counter() - clock) / count))
        # Packs amortize their fixed costs: grow them until one takes its share of the budget.
        count = min(64, count * 2) if timed[-1][1] * count * 2 < budget / 4 else count
        turn += 1
    # The last turns come nearest to what a full pack costs.
    kept = timed[-len(sizes) * max(2, turn // 2) :]
    found = Calibration(tuple(s for s, _ in kept), tuple(c for _, c in kept), failed=failed)
    start = max(0.0, first - 2 * found.seconds_at(sizes[0]))
    # Kernels that had to be compiled just now are on the disk for the workers.
    return replace(found, start=min(start, KERNELS_START) if isinstance(sweep.task, DifferentiableTask) else start)


def _pack(sweep: Sweep, size: int, count: int, first: int) -> int:
    """Train `count` runs of random subsets; return how many failed."""
    n = sweep.task.n
    runs = []
    for j in range(count):
        rng = np.random.default_rng([sweep.config.seed, size, first + j])
        runs.append(Run(j, np.sort(rng.choice(n, size=min(size, n), replace=False)), first + j))
    outcomes = train_pack(sweep.task, runs, sweep.config.measures, sweep.queries)
    return sum(outcome.failure is not None for outcome in outcomes)


def mean_size(plan: DesignPlan, looked_at: int = 16) -> float:
    """Return the mean subset size of a design; of random subsets, from a few of them spread over all."""
    if isinstance(plan.design, Permutations):
        return float(plan.design.sizes(plan.context).mean())
    count = plan.design.count(plan.context)
    chosen = np.unique(np.linspace(0, count - 1, min(looked_at, count)).astype(int))
    return float(np.mean([plan.design.mask(int(index), plan.context).sum() for index in chosen]))


def pack_by_time(calibration: Calibration, plans: Mapping[str, DesignPlan]) -> int:
    """Return how many runs a pack should hold: by time, not by count; a power of two where runs are many."""
    longest = max(calibration.seconds_at(mean_size(plan)) for plan in plans.values())
    wanted = 2 ** round(math.log2(max(PACK_SECONDS / max(longest, 1e-6), 1)))
    most = max(plan.runs for plan in plans.values()) // (4 * cores())  # several packs for every core
    return int(min(max(wanted, SMALLEST_PACK), max(SMALLEST_PACK, most), LARGEST_PACK))


def forecast(sweep: Sweep, plans: Mapping[str, DesignPlan], calibration: Calibration, bytes_on_disk: int) -> Forecast:
    """Return what the sweep will take on the resources that its configuration asks for."""
    slots = sweep.config.ray.workers or max(1, int(cores() // sweep.config.ray.num_cpus))
    designs = [
        DesignForecast(
            name,
            plan.runs,
            plan.runs * calibration.seconds_at(mean_size(plan)),
            calibration.errors.get(name, math.nan),
        )
        for name, plan in plans.items()
    ]
    if (removal := sweep.config.scores.removal) is not None:
        runs = removal.trainings
        left = sweep.task.n * (1 - float(np.mean(removal.fractions)))
        designs.append(DesignForecast(REMOVAL, runs, runs * calibration.seconds_at(left), math.nan))
    overhead = sum(PACK_OVERHEAD * plan.packs + RUN_OVERHEAD * plan.runs for plan in plans.values())
    work = sum(design.seconds for design in designs) / slots
    reach = calibration.uncertainty()
    return Forecast(
        tuple(designs),
        slots,
        calibration.start + overhead + work,
        overhead + work * max(0.0, 1 - reach),  # a worker that was up before needs no start
        2 * calibration.start + overhead + work * (1 + reach),
        bytes_on_disk,
        calibration.failed,
    )
