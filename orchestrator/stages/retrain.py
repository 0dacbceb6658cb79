"""Stage two: train every run that the store does not hold yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from orchestrator.designs.permutations import Permutations
from orchestrator.execution.pool import Job, Pool, Work
from orchestrator.execution.ray_pool import ray_pool
from orchestrator.execution.resources import resolve_device
from orchestrator.execution.scheduler import Scheduler, Tally
from orchestrator.stopping import Stopper
from orchestrator.store.ledger import DONE, FAILED, PENDING
from orchestrator.store.run_store import RunStore
from orchestrator.store.verification import Damage
from orchestrator.sweeps.plan import DesignPlan, to_runs
from orchestrator.sweeps.stopping_record import read_stopping
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.truncation import Truncation, skipped
from orchestrator.training_plan import training_plan
from workers.errors import StoreError

FROM_FILES = ("explicit", "leave_group_out")
"""Kinds of design whose subsets may come from a file that the configuration only names."""


@dataclass(frozen=True)
class Watch:
    """How the caller follows a retraining and stops it."""

    on_start: Callable[[dict[str, int]], None] = lambda totals: None
    """Called with the runs still to do, by design."""
    on_commit: Callable[[str, int, int], None] = lambda design, done, failed: None
    should_stop: Callable[[], bool] = lambda: False
    patience: Callable[[], bool] = lambda: True
    on_damage: Callable[[Damage], None] = lambda damage: None
    """Called for everything damaged that was found and will be trained again."""


class _StoppedError(Exception):
    """The watch said so while the store was being read."""


def mend(store: RunStore, plans: dict[str, DesignPlan], watch: Watch) -> None:
    """Find rows whose bytes no longer agree with the ledger; forget them, so that they are trained again.

    Damaged plan arrays are written anew, the configuration decides what is in them; outputs can only be checked after that.
    """
    if store.is_new:
        return
    for name, plan in plans.items():
        damages = _verify(store, name, watch)
        replanned = [damage for damage in damages if damage.what == "masks"]
        for damage in replanned:
            watch.on_damage(damage)
            block = plan.rows(*plan.span(damage.pack))
            store.write_plan(name, block.start, block.masks, block.seeds, block.subsets, block.repeats)
        for damage in _verify(store, name, watch) if replanned else damages:
            watch.on_damage(damage)
            store.forget(name, damage.rows)


def _verify(store: RunStore, design: str, watch: Watch) -> list[Damage]:
    def between_packs(checked: int, packs: int) -> None:
        if watch.should_stop():
            raise _StoppedError

    return store.verify(design, between_packs)


def retrain(
    sweep: Sweep,
    store: RunStore,
    watch: Watch | None = None,
    *,
    retry_failed: bool = False,
    pool: Pool | None = None,
) -> Tally:
    """Train what is missing; return what this call did. Ends early, everything finished kept, when the watch says so."""
    watch = watch or Watch()
    try:
        mend(store, sweep.plans, watch)
    except _StoppedError:
        return Tally()
    _refuse_other_subsets(sweep, store)
    if retry_failed:
        for name in sweep.plans:
            store.forget(name, np.flatnonzero(store.states(name) == FAILED))
    totals = {name: pending for name, (_, _, pending) in finished(sweep, store).items()}
    watch.on_start(totals)
    if not any(totals.values()) or watch.should_stop():
        return Tally()
    if pool is not None:
        return _schedule(sweep, store, watch, pool, sum(totals.values()))
    with ray_pool(work_of(sweep), sweep.config.ray) as workers:
        return _schedule(sweep, store, watch, workers, sum(totals.values()))


def work_of(sweep: Sweep) -> Work:
    """Return what is the same for all packs of a sweep."""
    settings = sweep.config.ray
    device, threads = resolve_device(settings), max(1, int(settings.num_cpus))
    return Work(
        sweep.spec, sweep.config.measures, sweep.queries, device, threads, training_plan(sweep, device, threads)
    )


def _refuse_other_subsets(sweep: Sweep, store: RunStore) -> None:
    """Refuse to go on with a file of masks or groups that changed since its design was planned: its runs would be others."""
    for name, plan in sweep.plans.items():
        if plan.design.kind not in FROM_FILES:
            continue
        for block in plan.blocks():
            if not np.array_equal(block.masks, store.masks(name, block.start, block.start + len(block.masks))):
                raise StoreError(
                    f"{sweep.paths.root}: designs.{name} has other subsets than when it was planned, its file was changed; "
                    "put the file back, or choose another --out"
                )


def _schedule(sweep: Sweep, store: RunStore, watch: Watch, pool: Pool, runs: int) -> Tally:
    stopper = Stopper(sweep, store)

    def landed(design: str, done: int, failed: int) -> None:
        watch.on_commit(design, done, failed)
        stopper.landed(design)

    scheduler = Scheduler(pool, store, sweep.config.ray.in_flight, landed, watch.should_stop, watch.patience)
    return scheduler.run(_jobs(sweep, store, stopper), runs)


def _jobs(sweep: Sweep, store: RunStore, stopper: Stopper) -> Iterator[Job | None]:
    """Yield one job for every pack with rows still to do: reference models first, they are few and long.

    Designs that are scored on come before those that are stopped by their score.
    """
    order = sorted(sweep.plans.values(), key=lambda plan: (plan.design.kind != "full", plan.name in sweep.config.stop))
    for plan in order:
        packs = _chained(store, plan) if isinstance(plan.design, Permutations) else _packs(store, plan)
        yield from takewhile(lambda _, name=plan.name: not stopper.met(name), packs)  # type: ignore[misc]


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
    wanted = store.states(plan.name)[start:stop] == PENDING
    if left_out is not None:
        wanted &= ~left_out[start:stop]
    if not wanted.any():
        return None
    # Read, not drawn again: what is trained is what is recorded.
    masks, seeds = store.masks(plan.name, start, stop), store.seeds(plan.name, start, stop)
    runs = to_runs(start, masks, seeds, wanted, plan.checkpoint_epochs)
    arrival = truncation.arrival if truncation and plan.pack >= truncation.steps else None
    return Job(plan.name, pack, runs, arrival, unit=arrival.steps if arrival else 1)


def _chained(store: RunStore, plan: DesignPlan) -> Iterator[Job | None]:
    """Yield the packs of permutations, each after what decides on it has landed; None while all of them have to wait."""
    truncation = Truncation(store, plan)
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


def finished(sweep: Sweep, store: RunStore) -> dict[str, tuple[int, int, int]]:
    """Return done, failed and pending runs of every design; prefixes that truncation leaves out are not
    pending, and nothing is of a design whose stopping criterion is met."""
    counts = {}
    curves = read_stopping(sweep)
    for name, plan in sweep.plans.items():
        states = store.states(name)
        stop, curve = sweep.config.stop.get(name), curves.get(name)
        stopped = stop is not None and curve is not None and curve.met and curve.criterion == stop.when
        pending = (states == PENDING) & ~skipped(store, plan) & (not stopped)
        counts[name] = (int((states == DONE).sum()), int((states == FAILED).sum()), int(pending.sum()))
    return counts
