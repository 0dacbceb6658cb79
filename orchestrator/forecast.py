"""What a sweep will cost, said before anything is spent: a few runs are trained here and the rest is arithmetic."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.config import cores
from orchestrator.designs import Context
from orchestrator.plan import DesignPlan
from orchestrator.sweep import Sweep
from workers.packs import train_pack
from workers.runs import Outcome, Run

BUDGET_SECONDS = 6.0
"""What the calibration may cost, about."""
PACK_SECONDS = 1.5
"""What a pack should take: long beside the cost of scheduling and committing it, short beside a person's patience."""
SMALLEST_PACK, LARGEST_PACK = 8, 4096
START_SECONDS = 6.0
"""Starting Ray and its workers."""
PACK_OVERHEAD = 0.01
"""Driver's time a pack: scheduling, writing, hashing."""


@dataclass(frozen=True)
class Calibration:
    """Measured on this machine: one core, this task."""

    sizes: tuple[int, ...]
    """Subset sizes of the timed runs."""
    seconds: tuple[float, ...]
    """Time a run of each took, trained in a pack."""
    spread: float
    """Standard deviation of the output over subsets and seeds, mean over queries; NaN where too few runs succeeded."""
    seed_spread: float
    """The same over seeds alone."""
    failed: int
    """Calibration runs that failed."""

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
    """Time on the wall."""
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
        return _calibrate(sweep, plans, budget)
    finally:
        torch.set_num_threads(threads)


def _calibrate(sweep: Sweep, plans: Mapping[str, DesignPlan], budget: float) -> Calibration:
    started = time.monotonic()
    sizes = sorted({max(1, round(mean_size(plan))) for plan in plans.values()})
    sizes = sizes if len(sizes) < 3 else [sizes[0], sizes[len(sizes) // 2], sizes[-1]]
    _pack(sweep, sizes[0], 2, first=0)  # pays for compilation and first touches
    timed: list[tuple[int, float]] = []
    outcomes: list[list[Outcome]] = []
    count, turn = 4, 1
    while turn == 1 or (time.monotonic() - started < budget and turn < 12):
        for size in sizes:
            clock = time.perf_counter()
            outcomes.append(_pack(sweep, size, count, first=turn * 1000))
            timed.append((size, (time.perf_counter() - clock) / count))
        # Packs amortize their fixed costs: grow them until one takes its share of the budget.
        count = min(64, count * 2) if timed[-1][1] * count * 2 < budget / 4 else count
        turn += 1
    # The last turns come nearest to what a full pack costs.
    kept = timed[-len(sizes) * max(2, turn // 2) :]
    spread, seed_spread = _spreads(sweep, outcomes)
    failed = sum(outcome.failure is not None for pack in outcomes for outcome in pack)
    return Calibration(tuple(s for s, _ in kept), tuple(c for _, c in kept), spread, seed_spread, failed)


def _pack(sweep: Sweep, size: int, count: int, first: int) -> list[Outcome]:
    """Train `count` runs: pairs of one random subset and two seeds."""
    n = sweep.task.n
    runs = []
    for j in range(count):
        rng = np.random.default_rng([sweep.config.seed, size, first + j // 2])
        subset = np.sort(rng.choice(n, size=min(size, n), replace=False))
        runs.append(Run(j, subset, first + j))
    return train_pack(sweep.task, runs, sweep.config.measures, sweep.queries)


def _spreads(sweep: Sweep, packs: list[list[Outcome]]) -> tuple[float, float]:
    """Return the standard deviation over all runs of a pack, and over the two seeds of a subset."""
    measure = sweep.config.measures[0]
    within: list[NDArray[np.float64]] = []
    between: list[NDArray[np.float64]] = []
    for pack in packs:
        if len(pack) < 4 or any(outcome.failure for outcome in pack):
            continue
        values = np.stack([outcome.outputs[measure] for outcome in pack]).astype(np.float64)
        between.append(values.var(axis=0, ddof=1))
        within.append(((values[::2] - values[1::2]) ** 2 / 2).mean(axis=0))
    if not between:
        return math.nan, math.nan
    return float(np.sqrt(np.mean(between, axis=0)).mean()), float(np.sqrt(np.mean(within, axis=0)).mean())


def mean_size(plan: DesignPlan, looked_at: int = 16) -> float:
    """Return the mean subset size of a design, from a few of its subsets spread over all of them."""
    count = plan.design.count(plan.context)
    chosen = np.unique(np.linspace(0, count - 1, min(looked_at, count)).astype(int))
    return float(np.mean([plan.design.mask(int(index), plan.context).sum() for index in chosen]))


def pack_by_time(calibration: Calibration, plans: Mapping[str, DesignPlan]) -> int:
    """Return how many runs a pack should hold: by time, not by count; a power of two."""
    longest = max(calibration.seconds_at(mean_size(plan)) for plan in plans.values())
    wanted = 2 ** round(math.log2(max(PACK_SECONDS / max(longest, 1e-6), 1)))
    most = max(plan.runs for plan in plans.values()) // (4 * cores())  # several packs for every core
    return int(min(max(wanted, SMALLEST_PACK), max(SMALLEST_PACK, most), LARGEST_PACK))


def forecast(sweep: Sweep, plans: Mapping[str, DesignPlan], calibration: Calibration, bytes_on_disk: int) -> Forecast:
    """Return what the sweep will take on the resources that its configuration asks for."""
    slots = sweep.config.ray.workers or max(1, int(cores() // sweep.config.ray.num_cpus))
    designs = tuple(
        DesignForecast(
            name,
            plan.runs,
            plan.runs * calibration.seconds_at(mean_size(plan)),
            _standard_error(plan, calibration),
        )
        for name, plan in plans.items()
    )
    packs = sum(plan.packs for plan in plans.values())
    work = sum(design.seconds for design in designs) / slots
    fixed = START_SECONDS + PACK_OVERHEAD * packs
    reach = calibration.uncertainty()
    return Forecast(
        designs,
        slots,
        fixed + work,
        fixed + work * max(0.0, 1 - reach),
        fixed + work * (1 + reach),
        bytes_on_disk,
        calibration.failed,
    )


def _standard_error(plan: DesignPlan, calibration: Calibration) -> float:
    """Return the standard error to expect of one value, from the spread of outputs and the number of runs."""
    design, context = plan.design, plan.context
    if design.purpose != "fit":
        return math.nan
    if design.kind in {"subsets", "bernoulli", "explicit"}:
        share = min(max(mean_size(plan) / context.n, 1e-9), 1 - 1e-9)
        return calibration.spread * math.sqrt(1 / (plan.runs * share) + 1 / (plan.runs * (1 - share)))
    if design.kind in {"leave_one_out", "leave_group_out"}:
        return calibration.seed_spread * math.sqrt(2 / design.seeds)
    if design.kind == "permutations":
        permutations = plan.runs / max(1, _steps(plan.context, plan))
        return calibration.seed_spread * math.sqrt(2 / permutations)
    return math.nan


def _steps(context: Context, plan: DesignPlan) -> int:
    return len(plan.design.sizes(context)) if hasattr(plan.design, "sizes") else 1
