"""Stage one: check everything, lay out the store, write down what will be trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.attribution import requirements
from orchestrator.designs.registry import package_of
from orchestrator.execution.resources import refuse_impossible
from orchestrator.forecast.disk import disk_bound, kept_bound
from orchestrator.store.durable import write_atomically
from orchestrator.store.manifest import DesignKind, DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.identity import refuse_edited, refuse_other
from orchestrator.sweeps.plan import DesignPlan
from orchestrator.sweeps.provenance import Provenance, compared, provenance, read_provenance, record
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.task_record import keep_record
from workers.errors import StoreError


@dataclass(frozen=True)
class Planned:
    """One design, as `plan` shows it."""

    design: str
    kind: str
    purpose: str
    order: str
    """Whose batches its runs take: own, or shared."""
    subsets: int
    seeds: int
    runs: int
    packs: int
    bytes: int
    """Upper bound of what its runs, their records and checkpoints take on disk."""


def preview(sweep: Sweep) -> list[Planned]:
    """Check the whole configuration against its task and return what would be trained; writes nothing."""
    requirements.check(sweep)
    refuse_impossible(sweep.config.ray)
    return [_preview(sweep, plan) for plan in sweep.plans.values()]


def _preview(sweep: Sweep, plan: DesignPlan) -> Planned:
    design = plan.design
    subsets, most = design.count(plan.context), disk_bound(sweep, plan)
    said = design.kind, design.purpose, design.order
    return Planned(plan.name, *said, subsets, design.seeds, plan.runs, plan.packs, most)


def prepare(
    sweep: Sweep,
    *,
    tells: bool = True,
    accept_changes: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> RunStore:
    """Return the sweep's store open for writing, made or continued, with every design's rows written down.

    What the task tells of itself is kept beside them, unless another sweep `tells` that already.
    A sweep goes on under what its runs were trained under; under anything else only with `accept_changes`. `say` is told of
    differences that are no reason to refuse.

    Raises ConfigError or StoreError, with nothing written, when the configuration cannot be run or the folder is another's.
    """
    planned = preview(sweep)
    if secrets := sweep.config.kept()[1]:
        say(f"{sweep.paths.config.name} leaves out {', '.join(secrets)}: what looks like a secret is not kept")
    refuse_other(sweep, edited=accept_changes)
    if sweep.paths.runs.exists():
        store = _continue(sweep, accept_changes, say)
    else:
        _refuse_no_space(sweep.paths, sum(one.bytes for one in planned) + kept_bound(sweep))
        store = _create(sweep)
    try:
        _write_plans(store, sweep.plans)
        if tells:
            keep_record(sweep, again=len(read_provenance(sweep.paths)) > 1)
    except BaseException:
        store.close()
        raise
    return store


def _create(sweep: Sweep) -> RunStore:
    # The configuration comes first: it says how many runs a pack of the store has.
    write_atomically(sweep.paths.config, sweep.resolved_yaml().encode(), private=True)
    now = provenance(sweep)
    store = RunStore.create(
        sweep.paths,
        config_hash=sweep.config.identity(),
        n=sweep.task.n,
        t=sweep.t,
        measures=sweep.config.measures,
        designs=[layout_of(plan) for plan in sweep.plans.values()],
        attributes=dict(now.versions),
    )
    return _under(store, sweep, now)


def _under(store: RunStore, sweep: Sweep, now: Provenance) -> RunStore:
    """Record what is trained from here on, for every row that is committed to name it."""
    try:
        store.provenance = record(sweep, now)
    except BaseException:
        store.close()
        raise
    return store


def layout_of(plan: DesignPlan) -> DesignLayout:
    """Return what a store must know of a design."""
    design = plan.design
    of_kind = DesignKind(tuple(sorted(design.serves)), design.follows, design.growth_keys, package_of(design.kind))
    return DesignLayout(plan.name, design.kind, design.purpose, plan.runs, plan.pack, of_kind, plan.weighted)


def _continue(sweep: Sweep, accept: bool, say: Callable[[str], None]) -> RunStore:
    """Open the store of a former call, refusing one whose data, source or libraries changed; random designs may have grown."""
    store = RunStore.open(sweep.paths, write=True)
    try:
        if accept:
            refuse_edited(sweep, store)
        now, differences = compared(sweep, accept=accept or not store.has_begun)
        if differences:
            say(f"{sweep.paths.root}: goes on under other {'; '.join(map(str, differences))}")
        for name, plan in sweep.plans.items():
            if plan.runs < store.designs[name].runs:
                raise StoreError(
                    f"{sweep.paths.root}: designs.{name} has {store.designs[name].runs} runs, the configuration asks for "
                    f"{plan.runs}; a design can grow but not shrink"
                )
        for name in [name for name, plan in sweep.plans.items() if plan.runs > store.designs[name].runs]:
            store.extend(name, sweep.plans[name].runs)
        write_atomically(sweep.paths.config, sweep.resolved_yaml().encode(), private=True)
    except BaseException:
        store.close()
        raise
    return _under(store, sweep, now)


def _refuse_no_space(paths: SweepPaths, expected: int) -> None:
    place = paths.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if expected > free:
        raise StoreError(
            f"{paths.root}: runs and kept gradients need up to {expected / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free there; "
            "choose another --out, ask for fewer runs, or keep fewer gradients (store)"
        )


def _write_plans(store: RunStore, plans: dict[str, DesignPlan]) -> None:
    for name, plan in plans.items():
        if store.planned(name):
            continue
        for block in plan.blocks():
            store.write_plan(name, block.start, block.masks, block.seeds, block.subsets, block.repeats, block.weights)
