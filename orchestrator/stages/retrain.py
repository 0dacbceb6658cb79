"""Stage two: train every run that the store does not hold yet."""

from __future__ import annotations

import numpy as np

from orchestrator.attribution.early_stopping import Stopper
from orchestrator.execution.pool import Pool
from orchestrator.execution.ray_pool import ray_pool
from orchestrator.execution.scheduler import Scheduler, Tally
from orchestrator.retraining.counts import finished
from orchestrator.retraining.jobs import jobs_of
from orchestrator.retraining.repair import StoppedError, mend
from orchestrator.retraining.strategy import work_of
from orchestrator.retraining.watch import Watch
from orchestrator.store.ledger import FAILED
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.plan import Rows
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError
from workers.reproducibility import check_reproducible


def retrain(
    sweep: Sweep,
    store: RunStore,
    watch: Watch | None = None,
    *,
    retry_failed: bool = False,
    pool: Pool | None = None,
) -> Tally:
    """Train what is missing; return what this call did. Ends early, everything finished kept, when the watch says so.

    Stopping criteria are held against what is stored before anything is launched. Raises TaskError, before the first run of a
    sweep, for a task that one seed does not give one model of.
    """
    watch = watch or Watch()
    try:
        mend(store, sweep.plans, watch)
    except StoppedError:
        return Tally()
    _refuse_other_subsets(sweep, store)
    if retry_failed:
        for name in sweep.plans:
            store.forget(name, np.flatnonzero(store.states(name) == FAILED))
    store.begin_work()
    stopper = Stopper(sweep, store, watch.on_stop)
    stopper.begin()
    totals = {name: pending for name, (_, _, pending) in finished(sweep, store).items()}
    watch.on_start(totals)
    if not any(totals.values()) or watch.should_stop():
        return Tally()
    if pool is not None:
        return _schedule(sweep, store, watch, stopper, pool, sum(totals.values()))
    if not store.has_begun:
        check_reproducible(sweep.task)
    work = work_of(sweep, store.has_begun)
    if work.strategy is not None:
        watch.on_strategy(work.strategy)
    with ray_pool(work, sweep.config.ray) as workers:
        return _schedule(sweep, store, watch, stopper, workers, sum(totals.values()))


def _refuse_other_subsets(sweep: Sweep, store: RunStore) -> None:
    """Refuse to go on with a file of masks, groups or weights that changed since its design was planned."""
    for name, plan in sweep.plans.items():
        for block in plan.blocks() if plan.design.from_outside else ():
            if changed := _changed(block, store, name):
                raise StoreError(
                    f"{sweep.paths.root}: designs.{name} has other {changed} than when it was planned, its file was changed; "
                    "put the file back, or choose another --out"
                )


def _changed(block: Rows, store: RunStore, name: str) -> str:
    """Return what of some rows is not what the store has of them; empty where nothing is."""
    stop = block.start + len(block.masks)
    if not np.array_equal(block.masks, store.masks(name, block.start, stop)):
        return "subsets"
    if block.weights is None:
        return ""
    kept = store.weights(name, block.start, stop)
    return "" if kept is not None and np.array_equal(block.weights, kept) else "weights"


def _schedule(sweep: Sweep, store: RunStore, watch: Watch, stopper: Stopper, pool: Pool, runs: int) -> Tally:
    def landed(design: str, done: int, failed: int) -> None:
        watch.on_commit(design, done, failed)
        stopper.landed(design)

    in_flight = sweep.config.ray.in_flight
    scheduler = Scheduler(pool, store, in_flight, landed, watch.should_stop, stopper.met, watch.patience)
    return scheduler.run(jobs_of(sweep, store, stopper.met), runs)
