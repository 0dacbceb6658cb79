"""Hold the store to its word: every row against its hash, and what is kept for queries against its checksums; some runs trained
again and compared bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.attribution.kept_standing import why_not_standing
from orchestrator.store import accounting
from orchestrator.store.damage import Damage
from orchestrator.store.kept_verification import KeptDamage, verify_gradients, verify_query_attributions
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.plan import to_runs
from orchestrator.sweeps.provenance import compared, provenance, read_provenance
from orchestrator.sweeps.roles import refuse_imported
from orchestrator.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from orchestrator.execution.pool import Job, Pool


@dataclass(frozen=True)
class Rerun:
    """One run trained again."""

    design: str
    row: int
    equal: bool
    """Whether every output is equal bit by bit."""
    difference: float
    """Largest absolute difference over queries and measures; NaN when the run failed this time."""


def check_rows(store: RunStore) -> list[Damage]:
    """Return everything that disagrees with the ledger."""
    return [damage for name in store.designs for damage in store.verify(name)]


@dataclass(frozen=True)
class KeptFindings:
    """What was found of gradients that are kept, and of attributions of queries that came later."""

    damages: tuple[KeptDamage, ...]
    """What is not as it was written."""
    outdated: tuple[str, ...]
    """What is of other options than the configuration's, a line each: whole, and no longer used."""


def check_kept(sweep: Sweep, store: RunStore) -> KeptFindings:
    """Read everything that is kept beside the runs for queries, and hold it to its checksums and to the configuration."""
    damages = (*verify_gradients(sweep.paths), *verify_query_attributions(sweep.paths))
    return KeptFindings(damages, tuple(why_not_standing(sweep, store.n)))


def machine_changes(sweep: Sweep) -> dict[str, tuple[Any, Any]]:
    """Return what differs between where the runs were made and here: bits may then differ, and be right."""
    records, now = read_provenance(sweep.paths), provenance(sweep)
    return {one.what: (one.was, one.now) for record in records[-1:] for one in record.differences(now)}


class _Keeper:
    """A sink that keeps outcomes in memory instead of writing them."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, int], Any] = {}

    def commit(self, design: str, pack: int, outcomes: Any, *, worker: str, started: float, seconds: float) -> None:
        for outcome in outcomes:
            self.outcomes[design, outcome.row] = outcome


def rerun(
    sweep: Sweep, store: RunStore, count: int, seed: int = 0, pool: Pool | None = None, *, accept_changes: bool = False
) -> list[Rerun]:
    """Train `count` finished runs again, each within its own pack as it was trained then, and compare.

    Only those that were trained under what the sweep goes on under, unless changes are accepted. Raises ConfigError for runs that
    were imported, StoreError where what decides runs has changed and that is not accepted.
    """
    refuse_imported(sweep)
    compared(sweep, accept=accept_changes)
    under = {record.id for record in read_provenance(sweep.paths)[-1:]}
    done = [
        (name, row)
        for name in store.designs
        for row, made in sorted(accounting.made_under(store, name).items())
        if accept_changes or made in under
    ]
    chosen = np.random.default_rng(seed).permutation(len(done))[:count]
    wanted = sorted(done[int(i)] for i in chosen)
    outcomes = _train(sweep, _whole_packs(sweep, wanted), pool)
    return [_compare(store, name, row, outcomes[name, row]) for name, row in wanted]


def _whole_packs(sweep: Sweep, wanted: list[tuple[str, int]]) -> Iterator[Job]:
    """Yield a job for every pack that has one of the rows wanted, each given as (design, row)."""
    from orchestrator.execution.pool import Job

    for name, pack in sorted({(name, row // sweep.plans[name].pack) for name, row in wanted}):
        plan = sweep.plans[name]
        start, stop = plan.span(pack)
        rows = plan.rows(start, stop)
        every = np.ones(stop - start, dtype=bool)
        yield Job(name, pack, to_runs(start, rows.masks, rows.seeds, every, plan.design, weights=rows.weights))


def _train(sweep: Sweep, jobs: Iterator[Job], pool: Pool | None) -> dict[tuple[str, int], Any]:
    """Train jobs and return the outcome of every (design, row)."""
    # Imported only now: a store that is only looked at must not wait for Ray and PyTorch.
    from orchestrator.execution.ray_pool import ray_pool
    from orchestrator.execution.scheduler import Scheduler
    from orchestrator.retraining.strategy import work_of

    keeper = _Keeper()
    if pool is not None:
        Scheduler(pool, keeper).run(jobs)
        return keeper.outcomes
    settings = sweep.config.ray
    with ray_pool(work_of(sweep), settings) as workers:
        Scheduler(workers, keeper, settings.in_flight).run(jobs)
    return keeper.outcomes


def _compare(store: RunStore, design: str, row: int, outcome: Any) -> Rerun:
    if outcome.failure is not None:
        return Rerun(design, row, equal=False, difference=float("nan"))
    equal, difference = True, 0.0
    for measure in store.measures:
        kept = store.outputs(design, measure, row, row + 1)[0]
        now = outcome.outputs[measure]
        equal &= bool(np.array_equal(kept, now))
        difference = max(difference, float(np.abs(kept - now).max()))
    return Rerun(design, row, equal, difference)
