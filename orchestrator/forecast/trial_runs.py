"""A few runs trained before a sweep begins: how long they take, how uncertain values will be."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from orchestrator.forecast.standard_error import ExpectedErrors, Trial, expected_errors
from orchestrator.sweeps.plan import DesignPlan
from orchestrator.sweeps.sweep import Sweep
from workers.loading import build_task
from workers.packed.calibration import strategy_of
from workers.packs import PackTrainer
from workers.runs import Failure, Run
from workers.task import DifferentiableTask

BUDGET_SECONDS = 6.0
"""What trial runs may cost, about; half of it finds how long runs take, half how uncertain values will be."""
RUNS = 4
"""Runs of each size to begin with."""
FEW_BATCHES = 2
"""Batches of the shortest training that is timed for a longer one."""
KERNELS_START = 1.0
"""What a worker needs at most to load compiled kernels."""


@dataclass(frozen=True)
class TrialRuns:
    """Measured on this machine: one core, this task."""

    sizes: tuple[int, ...]
    """Subset sizes of the timed runs."""
    seconds: tuple[float, ...]
    """Time a run of each took, trained in a pack."""
    errors: Mapping[str, ExpectedErrors] = field(default_factory=dict)
    """Standard errors to expect, by design."""
    tried: int = 0
    """Runs that were timed."""
    failed: int = 0
    """Of these, how many failed."""
    failure: str = ""
    """Why the first of them did."""
    seeds_matter: bool = True
    """False where two trainings on one subset, with different seeds, gave the same outputs bit by bit."""
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


def try_runs(sweep: Sweep, plans: Mapping[str, DesignPlan], budget: float = BUDGET_SECONDS) -> TrialRuns:
    """Train a few packs in this process, on one thread as a worker would; nothing of it is kept.

    Trainings that are long beside the budget are timed on a part of their examples.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = PackTrainer(sweep.task)
        timed = _timed(sweep, plans, trainer, budget / 2)
        telling = [plan for plan in plans.values() if plan.design.purpose == "fit" and plan.design.error_forecast]
        errors = {}
        for plan in telling:
            runs = int(budget / 2 / len(telling) / max(timed.seconds_at(plan.epoch_size), 1e-6))
            errors[plan.name] = expected_errors(Trial(sweep, plans, plan, runs, trainer))
        return replace(timed, errors=errors)
    finally:
        torch.set_num_threads(threads)


def _timed(sweep: Sweep, plans: Mapping[str, DesignPlan], trainer: PackTrainer, budget: float) -> TrialRuns:
    """Time packs of the sizes that the designs have."""
    if isinstance(sweep.task, DifferentiableTask):
        strategy_of(sweep.task, "cpu")  # measured once on a machine, not once a worker
    started = time.perf_counter()
    build_task(sweep.spec, sweep.in_memory.arrays)
    sizes, count = _sizes(sweep, plans, trainer, budget)
    seeds_matter = _seeds_matter(sweep, trainer, sizes[-1])  # pays for compilation and first touches
    first = time.perf_counter() - started
    timed: list[tuple[int, float]] = []
    turn = 1
    failures: list[Failure] = []
    tried = 0
    while turn == 1 or (time.perf_counter() - started < budget and turn < 12):
        for size in sizes:
            clock = time.perf_counter()
            failures += _pack(sweep, trainer, size, count, first=turn * 1000)
            tried += count
            timed.append((size, (time.perf_counter() - clock) / count))
        # Packs amortize their fixed costs: grow them until one takes its share of the budget.
        count = min(64, count * 2) if timed[-1][1] * count * 2 < budget / 4 else count
        turn += 1
    # The last turns come nearest to what a full pack costs.
    kept = timed[-len(sizes) * max(2, turn // 2) :]
    found = TrialRuns(
        tuple(s for s, _ in kept),
        tuple(c for _, c in kept),
        tried=tried,
        failed=len(failures),
        failure=str(failures[0]) if failures else "",
        seeds_matter=seeds_matter,
    )
    start = max(0.0, first - 2 * found.seconds_at(sizes[-1]))
    # Kernels that had to be compiled just now are on the disk for the workers.
    return replace(found, start=min(start, KERNELS_START) if isinstance(sweep.task, DifferentiableTask) else start)


def _sizes(sweep: Sweep, plans: Mapping[str, DesignPlan], trainer: PackTrainer, budget: float) -> tuple[list[int], int]:
    """Return the subset sizes to time, ascending, and how many runs of each to begin with.

    They are the designs' own. Where such trainings would take longer than the budget, and the recipe is ours, so that time is a
    straight line in the examples, they are some whole batches and as many examples as the budget allows: it is extrapolated.
    """
    sizes = sorted({max(1, round(plan.epoch_size)) for plan in plans.values()})
    sizes = sizes if len(sizes) < 3 else [sizes[0], sizes[len(sizes) // 2], sizes[-1]]
    if not isinstance(sweep.task, DifferentiableTask):
        return sizes, RUNS
    recipe = sweep.task.recipe
    batch = recipe.batch_size * recipe.accumulate
    few = FEW_BATCHES * batch
    if sizes[-1] < 2 * few:
        return sizes, RUNS
    for _ in range(2):  # the first pays for what is loaded once
        clock = time.perf_counter()
        _pack(sweep, trainer, few, 1, first=0)
        an_example = (time.perf_counter() - clock) / few
    if an_example * (2 * sizes[-1] + RUNS * sum(sizes)) <= budget:
        return sizes, RUNS
    most = int(budget / 4 / max(an_example, 1e-12)) // batch * batch  # the pair that tells of seeds, one of each size
    return [few, min(sizes[-1], max(2 * few, most))], 1


def _seeds_matter(sweep: Sweep, trainer: PackTrainer, size: int) -> bool:
    """Train two runs on one subset with different seeds; return whether anything came out otherwise, or was not to be had."""
    subset = np.sort(np.random.default_rng([sweep.config.seed, size]).choice(sweep.task.n, size, replace=False))
    outcomes = trainer.train([Run(j, subset, j) for j in range(2)], sweep.config.measures, sweep.queries)
    if any(outcome.failure for outcome in outcomes):
        return True
    one, other = (outcome.outputs for outcome in outcomes)
    return not all(np.array_equal(one[measure], other[measure]) for measure in sweep.config.measures)


def _pack(sweep: Sweep, trainer: PackTrainer, size: int, count: int, first: int) -> list[Failure]:
    """Train `count` runs of random subsets; return why some failed."""
    n = sweep.task.n
    runs = []
    for j in range(count):
        rng = np.random.default_rng([sweep.config.seed, size, first + j])
        runs.append(Run(j, np.sort(rng.choice(n, size=min(size, n), replace=False)), first + j))
    outcomes = trainer.train(runs, sweep.config.measures, sweep.queries)
    return [outcome.failure for outcome in outcomes if outcome.failure is not None]
