"""What a sweep will train: every design's rows, computed from keys alone, in any order and as often as wanted.

That, and nothing else, is called a plan: the stage `plan` makes it, a `DesignPlan` is one design's, and the store keeps its rows.
How packs are trained is a strategy (workers/packed/strategy.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.config.schema import Config
from orchestrator.designs import Context, Design
from orchestrator.store.attributions import read_attribution
from orchestrator.store.manifest import read_manifest
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import is_folder
from workers.errors import ConfigError, TaskError
from workers.runs import Run
from workers.task_hooks import groups_of

if TYPE_CHECKING:
    from workers.task import DifferentiableTask, Task

PROVISIONAL_PACK = 32
BLOCK_BYTES = 1 << 25


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one design."""

    start: int
    masks: NDArray[np.bool_]
    """(r, n)"""
    seeds: NDArray[np.uint32]
    """(r,)"""
    subsets: NDArray[np.int64]
    """(r,) which subset of the design each row trains on."""
    repeats: NDArray[np.int32]
    """(r,) which seed of that subset it is."""
    weights: NDArray[np.float32] | None = None
    """(r, n) what each example weighs, not 0 where the masks are True; None for a design that gives none."""


@dataclass(frozen=True)
class DesignPlan:
    """One design on one task. Row = subset * seeds + repeat."""

    design: Design
    context: Context
    pack: int
    checkpoint_epochs: tuple[int, ...]

    @property
    def name(self) -> str:
        """The design's name in the configuration."""
        return self.context.name

    @cached_property
    def runs(self) -> int:
        """Number of rows, m."""
        return self.design.count(self.context) * self.design.seeds

    @cached_property
    def weighted(self) -> bool:
        """Whether its rows have weights."""
        return self.design.drawable and self.design.weights_of(np.zeros(1, dtype=np.int64), self.context) is not None

    @cached_property
    def mean_size(self) -> float:
        """Mean size of a subset."""
        return self.design.mean_size(self.context)

    @property
    def epoch_size(self) -> float:
        """Mean number of examples that an epoch goes through, which is what a run's time goes by."""
        return self.mean_size if self.design.order == "own" else float(self.context.n)

    @property
    def packs(self) -> int:
        """Number of packs."""
        return -(-self.runs // self.pack)

    def span(self, pack: int) -> tuple[int, int]:
        """Return first row and row after the last of a pack."""
        return pack * self.pack, min((pack + 1) * self.pack, self.runs)

    def rows(self, start: int, stop: int) -> Rows:
        """Compute rows `start` to `stop`."""
        index = np.arange(start, stop)
        subsets, repeats = index // self.design.seeds, (index % self.design.seeds).astype(np.int32)
        distinct, place = np.unique(subsets, return_inverse=True)
        masks = self.design.many(distinct, self.context)[place]
        weights = self.design.weights_of(distinct, self.context)
        seeds = self.design.seeds_of(subsets, repeats, self.context)
        return Rows(start, masks, seeds, subsets, repeats, None if weights is None else weights[place])

    def packed(self) -> Iterator[bytes]:
        """Yield every subset's mask, a bit an example."""
        count = self.design.count(self.context)
        for start in range(0, count, self._block):
            subsets = np.arange(start, min(start + self._block, count))
            for bits in np.packbits(self.design.many(subsets, self.context), axis=1):
                yield bits.tobytes()

    def blocks(self) -> Iterator[Rows]:
        """Yield all rows, some packs at a time."""
        for start in range(0, self.runs, self._block):
            yield self.rows(start, min(start + self._block, self.runs))

    @property
    def _block(self) -> int:
        """Rows computed at once: whole packs, whose masks take no more than BLOCK_BYTES unless one pack's do."""
        return self.pack * max(1, BLOCK_BYTES // (self.pack * self.context.n))


def context_of(config: Config, name: str, n: int, groups: Mapping[str, NDArray[np.int64]] | None = None) -> Context:
    """Return what a design may know of a sweep of `n` examples; `groups` are needed only where subsets are drawn."""
    fenced = any(design.purpose == "score" for design in config.designs.values())
    return Context(name, config.seed, n, fenced, groups or {}, dict(config.designs), config.folder, _attribution_in)


def _attribution_in(folder: Path, label: str) -> NDArray[np.float32]:
    """Return the values (n, t) of an attribution of another sweep. Raises StoreError where they cannot be had."""
    return read_attribution(SweepPaths(folder), label).values


def kept_packs(config: Config, paths: SweepPaths) -> dict[str, int]:
    """Return the runs a pack of every design in the store that was made for this configuration; nothing where there is none.

    A store's packs are its chunks: they stay what they are, whatever else of the configuration changes. Raises StoreError where
    the store's manifest is damaged.
    """
    if not is_folder(paths.runs):
        return {}
    manifest = read_manifest(paths)
    return {one.name: one.pack for one in manifest.designs} if manifest.config_hash == config.identity() else {}


def plan_designs(
    config: Config, task: Task | DifferentiableTask, packs: Mapping[str, int] | None = None
) -> dict[str, DesignPlan]:
    """Return the plan of every design, with `packs` of so many runs where they are known.

    Raises ConfigError, naming the key, for a design that cannot be drawn on this task.
    """
    from workers.task import DifferentiableTask, trains_itself

    groups = groups_of(task)
    plans = {}
    for name, design in config.designs.items():
        context = context_of(config, name, task.n, groups)
        design.check(context)
        if design.order == "shared":
            _check_shared(task, name)
        elif design.weighs and not isinstance(task, DifferentiableTask):
            raise ConfigError(
                f"designs.{name}.kind: {design.kind} needs a differentiable task; {type(task).__name__} trains itself"
            )
        if design.drawable:
            size = int(design.mask(0, context).sum())  # so few examples may have no subset on this side of the fence
            _check_last_batch(task, design, context, size)
        epochs: tuple[int, ...] = ()
        if isinstance(task, DifferentiableTask):
            epochs = design.checkpoint_epochs(task.recipe.epochs, context)
        elif trains_itself(task):
            epochs = design.checkpoint_epochs(None, context)
            if design.keeps_optimizer_state:
                raise ConfigError(
                    f"designs.{name}.optimizer_state: needs a differentiable task; {type(task).__name__} trains itself"
                )
        pack = (packs or {}).get(name) or design.pack(_pack(config, name), context)
        plans[name] = DesignPlan(design, context, pack, epochs)
    _refuse_overlap(plans)
    return plans


def _check_shared(task: Task | DifferentiableTask, name: str) -> None:
    """Refuse shared order for a task that trains itself, and for a module in which left-out examples would touch the others."""
    from workers.task import DifferentiableTask
    from workers.training.present_norm import check_apart

    if isinstance(task, DifferentiableTask):
        try:
            check_apart(task)
        except TaskError as error:
            raise ConfigError(f"designs.{name}.order: {error}") from error
    else:
        raise ConfigError(
            f"designs.{name}.order: shared needs a differentiable task; {type(task).__name__} trains itself, in its own batches"
        )


def _check_last_batch(task: Task | DifferentiableTask, design: Design, context: Context, size: int) -> None:
    """Refuse a last batch that would fail in every run: all subsets are as large as the first, or batches are the full set's."""
    from workers.task import DifferentiableTask
    from workers.training.last_batch import check_last_batch

    shared = design.order == "shared"
    if not isinstance(task, DifferentiableTask) or not (shared or size == design.mean_size(context)):
        return
    try:
        check_last_batch(task, context.n if shared else size, in_full=not shared)
    except TaskError as error:
        raise ConfigError(f"designs.{context.name}: subsets of {size} examples: {error}") from error


def _pack(config: Config, design: str) -> int:
    """Return the runs a pack; while `auto` is not settled (stages/forecast.py), any number will do to look at a plan.

    Of a design that may be stopped a whole number of packs, as equal as can be, makes `every`: its looks come when they are due.
    """
    pack = PROVISIONAL_PACK if config.pack == "auto" else config.pack
    if design not in config.stop:
        return pack
    every = config.stop[design].every
    packs = math.ceil(every / pack)
    return math.ceil(every / packs)


def _refuse_overlap(plans: dict[str, DesignPlan]) -> None:
    """Refuse a subset on both sides of the fence. Some designs keep apart by themselves; others need a look."""
    scoring = [plan for plan in plans.values() if plan.design.purpose == "score"]
    apart = all(plan.design.keeps_its_side for plan in scoring)
    looked_at = [
        plan for plan in plans.values() if plan.design.purpose != "score" and not (apart and plan.design.keeps_its_side)
    ]
    if not scoring or not looked_at:
        return
    scored = {mask: plan.name for plan in scoring for mask in plan.packed()}
    for plan in looked_at:
        for subset, mask in enumerate(plan.packed()):
            if mask in scored:
                raise ConfigError(
                    f"designs.{plan.name}: its subset {subset} is also one of designs.{scored[mask]}, "
                    "which is kept for scoring; a method must not be scored on subsets it was fitted on"
                )


def to_runs(
    start: int,
    masks: NDArray[np.bool_],
    seeds: NDArray[np.uint32],
    wanted: NDArray[np.bool_],
    design: Design,
    checkpoint_epochs: tuple[int, ...] = (),
    weights: NDArray[np.float32] | None = None,
) -> tuple[Run, ...]:
    """Return those of the design's consecutive rows from `start` that are `wanted` (r,) as runs for a worker."""
    chosen = masks[wanted]
    examples = np.nonzero(chosen)[1]
    factors = None if weights is None else weights[wanted][chosen]
    ends = np.cumsum(chosen.sum(axis=1)).tolist()
    rows = (start + np.flatnonzero(wanted)).tolist()
    return tuple(
        Run(
            row,
            examples[first:last],
            seed,
            checkpoint_epochs,
            design.order,
            design.normalize,
            None if factors is None else factors[first:last],
            design.keeps_optimizer_state,
        )
        for row, first, last, seed in zip(rows, [0, *ends], ends, seeds[wanted].tolist(), strict=False)
    )
