"""Stage two: train every run that the store does not hold yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from orchestrator.plan import DesignPlan, to_runs
from orchestrator.pool import Job, Pool, Work, ray_pool, resolve_device
from orchestrator.scheduler import Scheduler, Tally
from orchestrator.store import DONE, FAILED, PENDING, Damage, RunStore
from orchestrator.sweep import Sweep


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


def mend(store: RunStore, plans: dict[str, DesignPlan], watch: Watch) -> None:
    """Find rows whose bytes no longer agree with the ledger; forget them, so that they are trained again.

    Damaged plan arrays are written anew, the configuration decides what is in them; outputs can only be checked after that.
    """
    for name, plan in plans.items():
        damages = store.verify(name)
        replanned = [damage for damage in damages if damage.what == "masks"]
        for damage in replanned:
            watch.on_damage(damage)
            block = plan.rows(*plan.span(damage.pack))
            store.write_plan(name, block.start, block.masks, block.seeds, block.subsets, block.repeats)
        for damage in store.verify(name) if replanned else damages:
            watch.on_damage(damage)
            store.forget(name, damage.rows)


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
    mend(store, sweep.plans, watch)
    if retry_failed:
        for name in sweep.plans:
            store.forget(name, np.flatnonzero(store.states(name) == FAILED))
    totals = {name: int((store.states(name) == PENDING).sum()) for name in sweep.plans}
    watch.on_start(totals)
    if not any(totals.values()) or watch.should_stop():
        return Tally()
    if pool is not None:
        return _schedule(sweep, store, watch, pool)
    work = Work(
        sweep.spec,
        sweep.config.measures,
        sweep.queries,
        resolve_device(sweep.config.ray),
        max(1, int(sweep.config.ray.num_cpus)),
    )
    with ray_pool(work, sweep.config.ray) as workers:
        return _schedule(sweep, store, watch, workers)


def _schedule(sweep: Sweep, store: RunStore, watch: Watch, pool: Pool) -> Tally:
    scheduler = Scheduler(pool, store, sweep.config.ray.in_flight, watch.on_commit, watch.should_stop, watch.patience)
    return scheduler.run(_jobs(sweep, store))


def _jobs(sweep: Sweep, store: RunStore) -> Iterator[Job]:
    """Yield one job for every pack with rows still to do: reference models first, they are few and long."""
    order = sorted(sweep.plans.values(), key=lambda plan: plan.design.kind != "full")
    for plan in order:
        states = store.states(plan.name)
        for pack in range(plan.packs):
            start, stop = plan.span(pack)
            wanted = states[start:stop] == PENDING
            if wanted.any():
                runs = to_runs(plan.rows(start, stop), wanted, plan.checkpoint_epochs)
                yield Job(plan.name, pack, tuple(runs))


def finished(store: RunStore) -> dict[str, tuple[int, int, int]]:
    """Return done, failed and pending runs of every design."""
    counts = {}
    for name in store.designs:
        states = store.states(name)
        counts[name] = tuple(int((states == state).sum()) for state in (DONE, FAILED, PENDING))
    return counts  # type: ignore[return-value]
