"""Which packs are to be trained, in which order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from orchestrator.execution.pool import Job
from orchestrator.store.ledger import PENDING
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.plan import DesignPlan, to_runs
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.truncation import Truncation


def jobs_of(sweep: Sweep, store: RunStore, is_stopped: Callable[[str], bool]) -> Iterator[Job | None]:
    """Yield one job for every pack with rows still to do: reference models first, they are few and long.

    Designs that are scored on come before those that are stopped by their score. `is_stopped` is asked before every job
    whether its design is to be drawn from no more; of one that may be, no more should be in flight than lies between two looks.
    """
    order = sorted(sweep.plans.values(), key=lambda plan: (not plan.design.goes_first, plan.name in sweep.config.stop))
    for plan in order:
        truncation = Truncation.of(sweep.config, store, plan.name)
        packs = _packs(store, plan) if truncation is None else _prefixes(store, plan, truncation)
        stop = sweep.config.stop.get(plan.name)
        if stop is not None:
            packs = _a_little_ahead(packs, stop.every)
        yield from takewhile(lambda _, name=plan.name: not is_stopped(name), packs)  # type: ignore[misc]


def _a_little_ahead(jobs: Iterator[Job | None], runs: int) -> Iterator[Job | None]:
    for job in jobs:
        yield job and replace(job, ahead=runs)


def _packs(store: RunStore, plan: DesignPlan) -> Iterator[Job | None]:
    for pack in range(plan.packs):
        job = _job(store, plan, pack)
        if job is not None:
            yield job


def _job(
    store: RunStore,
    plan: DesignPlan,
    pack: int,
    truncation: Truncation | None = None,
    left_out: NDArray[np.bool_] | None = None,
) -> Job | None:
    """Return the job of a pack's pending rows that are not `left_out` (m,); None when it has none."""
    start, stop = plan.span(pack)
    wanted = store.states(plan.name, start, stop) == PENDING
    if left_out is not None:
        wanted &= ~left_out[start:stop]
    if not wanted.any():
        return None
    # Read, not drawn again: what is trained is what is recorded.
    masks, seeds = store.masks(plan.name, start, stop), store.seeds(plan.name, start, stop)
    runs = to_runs(
        start, masks, seeds, wanted, plan.design, plan.checkpoint_epochs, store.weights(plan.name, start, stop)
    )
    arrival = truncation.arrival if truncation and plan.pack >= truncation.steps else None
    return Job(plan.name, pack, runs, arrival, unit=arrival.steps if arrival else 1)


def _prefixes(store: RunStore, plan: DesignPlan, truncation: Truncation) -> Iterator[Job | None]:
    """Yield the packs of permutations, each after what decides on it has landed; None while all of them have to wait."""
    left_out = truncation.skipped()
    each = max(1, truncation.steps // plan.pack)
    settled = (store.states(plan.name) != PENDING) | left_out
    rows = max(truncation.steps, plan.pack)  # of the whole permutations that begin with a pack
    ready = deque(pack for pack in range(0, plan.packs, each) if not settled[pack * plan.pack :][:rows].all())
    waited = 0
    while ready:
        pack = ready.popleft()
        verdict = truncation.verdict(pack)
        if verdict == "wait":
            ready.append(pack)
            waited += 1
            if waited >= len(ready):
                waited = 0
                yield None
            continue
        waited = 0
        if verdict == "launch":
            if (pack + 1) % each:
                ready.append(pack + 1)
            job = _job(store, plan, pack, truncation, left_out)
            if job is not None:
                yield job
