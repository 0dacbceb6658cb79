"""What an estimator may look at: finished runs, reference models, the task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from estimators.kept_gradients import GradientStore
from estimators.workspace import Workspace
from workers.errors import ConfigError
from workers.runs import Checkpoint, Normalize, Order, Queries

if TYPE_CHECKING:
    from workers.task import DifferentiableTask, GradientTask, Task


@dataclass(frozen=True)
class Runs:
    """The finished runs of one design, seen through one measure."""

    design: str
    """The design's name in the configuration."""
    kind: str
    """Its kind: subsets, bernoulli, leave_one_out, ..."""
    measure: str
    masks: NDArray[np.bool_]
    """(m, n) bool: masks[j, i] says whether example i was in the subset of run j."""
    outputs: NDArray[np.float32]
    """(m, t) float32, finite: only finished runs are here."""
    subsets: NDArray[np.int64]
    """(m,) which subset of the design each run belongs to; runs of one subset differ in their seeds."""
    repeats: NDArray[np.int64]
    """(m,) which repeat of its subset each run is."""
    permutations: NDArray[np.int64] | None = None
    """(m,) which permutation each run's subset is a prefix of; -1 for one of an unfinished permutation, which is then not used.
    A permutation without its last prefixes was truncated: there its outputs count as those of the full set."""
    antithetic: bool = False
    """Whether permutation 2k + 1 is the reverse of permutation 2k, so that only pairs are independent."""
    order: str = ""
    """Whose batches a run takes: `own` (its subset is shuffled and batched by its seed) or `shared` (those of the full set for
    that seed, a left-out example weighing 0 in them); empty where nobody knows."""

    def blocks(
        self, rows: int = 4096, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float32]]]:
        """Yield masks (b, n) and outputs (b, t) of the runs start..stop, at most `rows` at a time.

        For estimators that never need all runs at once: a large design is then read from the store, and is never in memory.
        """
        stop = len(self.subsets) if stop is None else stop
        for first in range(start, stop, rows):
            block = slice(first, min(first + rows, stop))
            yield self.masks[block], self.outputs[block]

    def with_outputs(self, outputs: NDArray[np.float32]) -> Runs:
        """Return the same runs with other outputs (m, t), in memory."""
        others = {one.name: getattr(self, one.name) for one in fields(Runs) if one.name != "outputs"}
        return Runs(outputs=outputs, **others)

    def means(self) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return one row a subset: masks (s, n) and outputs averaged over that subset's seeds (s, t), float64."""
        _, first, inverse, counts = np.unique(self.subsets, return_index=True, return_inverse=True, return_counts=True)
        sums = np.zeros((len(first), self.outputs.shape[1]))
        np.add.at(sums, inverse, self.outputs.astype(np.float64))
        return self.masks[first], sums / counts[:, None]


@dataclass(frozen=True)
class Reference:
    """One model trained on the full set, with the checkpoints kept of it (ascending epochs, the last is the final one)."""

    seed: int
    checkpoints: tuple[Checkpoint, ...]
    order: Order = "own"
    """Whose batches it was trained on; of a model of the full set the same, with other bits."""
    normalize: Normalize = "batch"
    """What a batch's sum of weighted losses was divided by."""

    def segments(self, count: int) -> tuple[tuple[Checkpoint, ...], ...]:
        """Return the checkpoints after epoch 0 in `count` groups of equally many: one a segment of the training, in order.

        A segment goes from the last step of the one before it, or from step 0, to its own last checkpoint's. Raises ConfigError
        where the checkpoints cannot be cut so.
        """
        kept = tuple(one for one in self.checkpoints if one.epoch > 0)
        each, left = divmod(len(kept), count)
        if left or not each:
            raise ConfigError(
                f"{count} segments need equally many checkpoints each, the reference model of seed {self.seed} has "
                f"{len(kept)} after epoch 0: expected `checkpoints: {{segments: {count}, each: ...}}` in its design"
            )
        return tuple(kept[start : start + each] for start in range(0, len(kept), each))


@dataclass(frozen=True)
class Evidence:
    """Everything an estimator may look at. Runs kept for scoring are never here."""

    n: int
    t: int
    measure: str
    runs: Mapping[str, Runs] = field(default_factory=dict)
    """Fitting designs by name, those that have finished runs."""
    without_runs: Mapping[str, str] = field(default_factory=dict)
    """The kinds of the fitting designs that have none yet, by name."""
    references: tuple[Reference, ...] = ()
    task: Task | DifferentiableTask | None = None
    """The task, for an estimator that needs gradients (and to `check`); None for one that does not: its code is not run then."""
    queries: Queries = field(default_factory=Queries)
    seed: int = 0
    """Root of whatever the estimator draws (projections, splits)."""
    label: Callable[[str, int], str] | None = None
    """`label(source, index)`: the short name of an example's label, where the task names one."""
    empty: NDArray[np.float32] | None = None
    """(t,) the outputs of a model of no data, where the task or the design gives them."""
    workspace: Workspace = field(default_factory=Workspace)
    """Where long work is done."""
    gradients: GradientStore = field(default_factory=GradientStore)
    """Where an estimator that is asked to (`store`) keeps the projected gradients of the training examples."""

    def of_kind(self, *kinds: str, design: str | None = None) -> Runs:
        """Return the runs of the one design of these kinds, or of the one named. Raises ConfigError when there is not one."""
        found = [r for r in self.runs.values() if r.kind in kinds and design in (None, r.design)]
        if len(found) != 1:
            wanted = f"design {design!r}" if design else f"one fitting design of kind {' or '.join(kinds)}"
            waiting = [f"{name} ({kind}) without a finished run" for name, kind in self.without_runs.items()]
            have = ", ".join([*(f"{r.design} ({r.kind})" for r in self.runs.values()), *waiting]) or "none"
            hint = "; name it with `design:`" if len(found) > 1 else ""
            raise ConfigError(f"the estimator needs {wanted}, the sweep has: {have}{hint}")
        return found[0]

    def differentiable(self) -> GradientTask:
        """Return what is differentiated of the task, refusing one whose gradients cannot be taken."""
        from workers.own_training import gradient_task

        found = None if self.task is None else gradient_task(self.task)
        if found is None:
            raise ConfigError(
                "the estimator needs gradients, so a DifferentiableTask or one that trains itself; "
                "this sweep's task is a black box"
            )
        return found
