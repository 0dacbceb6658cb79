"""What estimators share that answer a query by inner products with projected gradients of the training examples: those may be
kept, and new queries are then answered without a pass over the training set."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from pydantic import Field

from estimators.evidence import Reference
from estimators.kept_gradients import MULTIPLIERS, ROWS, Array, KeptGradients, difference
from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from estimators.evidence import Evidence
    from estimators.gradients.functional_model import Model
    from estimators.gradients.projectors import Projector

FORMAT = 1
"""Raised when other rows are kept for the same options."""
AT_ONCE = 2**22
"""Bytes of kept rows that are multiplied at once: what stays in the processor's cache between being read and used."""


class ProjectingEstimator(ReferenceEstimator):
    """An estimator that multiplies a query's projected gradient with rows that the training examples alone decide."""

    changing_nothing: ClassVar[frozenset[str]] = frozenset({"models", "memory_gb", "store"})
    """Options that the rows of a model do not depend on."""

    store: bool = Field(
        False,
        description="keep the projected gradients of the training examples in the sweep: new queries then need no pass over them",
    )

    @property
    def can_store(self) -> bool:
        """Whether the options are such that `store` goes with them."""
        return True

    def check(self, evidence: Evidence) -> None:
        """Refuse what every estimator on reference models refuses, and rows that are larger than the memory."""
        super().check(evidence)
        if self.can_store:
            effects = self.projected_effects(self.material(evidence, ()))
            effects.refuse_beyond_memory(self.untrained(evidence.differentiable()))

    def kept_arrays(self, evidence: Evidence, epochs: Sequence[int]) -> tuple[int, list[int]]:
        """Return of how many networks each reference model's rows are kept, and the bytes of each array of a network.

        `epochs` are those of a reference model's checkpoints. Nothing is trained, and no gradient taken but to find the layers.
        """
        model = self.untrained(evidence.differentiable())
        checkpoints = tuple(Checkpoint(epoch, epoch, 0.0, {}) for epoch in epochs)
        effects = self.projected_effects(self.material(evidence, ()))
        networks = len(list(effects.chosen(Reference(0, checkpoints)))) * effects.material.members
        projector = effects.drawn(model, 0)
        arrays = [evidence.n * projector.k * model.dtype.itemsize, evidence.n * 8]
        return networks, arrays + [side.nbytes for side in projector.arrays().values()]

    def projected_effects(self, material: Material) -> ProjectedEffects:
        """Return `effects`, of which rows may be kept. Raises ConfigError where gradients are not projected."""
        effects = self.effects(material)
        if not isinstance(effects, ProjectedEffects):
            raise ConfigError(f"{self.name}: gradients that are not projected cannot be kept: expected a projection")
        return effects


class Sizes(NamedTuple):
    """How large projected gradients are."""

    dimensions: Sequence[int]
    """Of every block."""
    option: str
    """What makes them smaller."""
    squares: bool
    """Whether every block has a matrix of its dimensions."""


class Steps(Protocol):
    """What projected gradients of the training examples bring to those of queries, in float64."""

    def effects(self, targets: Tensor) -> Tensor:
        """Return what they bring to queries with these projected gradients (t, k): (n, t)."""

    def rows(self, dtype: torch.dtype) -> Tensor:
        """Return the same as rows (n, k) of a type: the effects are their products with the targets."""


@dataclass(frozen=True)
class TrainingSide:
    """What the training examples bring to any query at one model."""

    projector: Projector
    """What projects the gradients of queries."""
    steps: Steps
    multipliers: Tensor | None = None
    """(n,) whose mean over the models multiplies the mean of the effects."""
    told: Mapping[str, Any] | None = None
    """What is worth telling, as JSON holds it."""


class ProjectedEffects(ModelEffects):
    """The rows of every network times the queries' projected gradients, averaged over the networks."""

    def __init__(self, options: ProjectingEstimator, material: Material):
        super().__init__(material)
        self._projecting = options
        self._multipliers: Tensor | None = None
        self.told: list[Mapping[str, Any]] = []
        """What each network so far told of itself."""

    @abstractmethod
    def training_side(self, model: Model, number: int) -> TrainingSide:
        """Return what the training examples bring at the network of this number, whatever the measure and the queries."""

    @abstractmethod
    def drawn(self, model: Model, number: int) -> Projector:
        """Return a projector of the dimensions that a network's own has; no example is looked at but to find the layers."""

    def targets(self, projector: Projector, model: Model) -> Tensor:
        """Return the projected gradients of the queries, (t, k) float64. Raises ConfigError for a flat measure."""
        return projector.rows(model, self.measure(model), self.material.queries, self._projecting.budget // 4)

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield the effects at one network; its rows are kept, or those that are kept are used, where there is a store."""
        number = len(self.told)
        if not self._projecting.store:
            side = self.training_side(model, number)
            self.remember(side.told or {}, side.multipliers)
            yield slice(None), side.steps.effects(self.targets(side.projector, model))
            return
        kept = self._kept(model, checkpoint, number)
        targets = self.targets(self.projector(kept, model), model)
        self.remember(kept.told, multipliers_of(kept))
        yield slice(None), products(kept.arrays[ROWS], targets)

    def values(self, total: Tensor) -> Tensor:
        """Return the mean over the networks, times the mean of their multipliers."""
        # The total is one of means over the networks that stand for a model.
        return self.scaled(total * self.material.members / len(self.told))

    @abstractmethod
    def sizes(self, model: Model) -> Sizes:
        """Return the dimensions of what a network is projected to; no example is looked at but to find the layers."""

    def refuse_beyond_memory(self, model: Model) -> None:
        """Raise ConfigError where more than half the budget is held: the features of all blocks, the rows that are kept, and
        the blocks' matrices where there are some.
        """
        dimensions, option, squares = self.sizes(model)
        options, n = self._projecting, len(self.material.train)
        rows = n + len(self.material.queries)
        held = 8 * (
            rows * sum(dimensions) + (sum(size**2 for size in dimensions) + max(dimensions) ** 2 if squares else 0)
        )
        held += n * sum(dimensions) * model.dtype.itemsize if options.store else 0
        if held > options.budget // 2:
            raise ConfigError(
                f"{options.name}: projected gradients of {rows} examples in {sum(dimensions)} dimensions"
                f"{', and their matrices,' * squares} take {held / 2**30:.2g} GiB, more than half of "
                f"memory_gb={options.memory_gb:g}: expected a smaller {option} or a larger memory_gb"
            )

    def remember(self, told: Mapping[str, Any], multipliers: Tensor | None) -> None:
        """Count a network in."""
        self.told.append(told)
        if multipliers is not None:
            self._multipliers = multipliers if self._multipliers is None else self._multipliers + multipliers

    def scaled(self, means: Tensor, where: slice = slice(None)) -> Tensor:
        """Return the effects of some examples (b, t) from their means over the networks."""
        if self._multipliers is None:
            return means
        return self.multiplied(means, self._multipliers[where] / len(self.told), where)

    def multiplied(self, means: Tensor, multipliers: Tensor, where: slice) -> Tensor:
        """Return the mean effects (b, t) of these examples times their mean multipliers (b,)."""
        return means * multipliers.unsqueeze(1)

    def projector(self, kept: KeptGradients, model: Model) -> Projector:
        """Return what projects queries as the examples were. Raises ConfigError where that is not of this model."""
        from estimators.gradients.projectors import made_again

        return made_again(kept.projection, kept.arrays, model, self._projecting.budget // 4)

    def identity(self, model: Model, checkpoint: Checkpoint, number: int) -> dict[str, Any]:
        """Return what decides a network's rows."""
        options = self._projecting.model_dump(mode="json", exclude=set(self._projecting.changing_nothing))
        return {
            "format": FORMAT,
            "estimator": self._projecting.name,
            "options": options,
            "checkpoint": digest(checkpoint),
            "epoch": checkpoint.epoch,
            "network": number,
            "seed": self.material.seed,
            "n": len(self.material.train),
            "dtype": str(model.dtype).removeprefix("torch."),
        }

    def _kept(self, model: Model, checkpoint: Checkpoint, number: int) -> KeptGradients:
        """Return what is kept of a network, which is computed where it is not there or is another's."""
        store, wanted = self.material.gradients, self.identity(model, checkpoint, number)
        found = store.kept(number)
        if found is None or difference(found.identity, wanted):
            side = self.training_side(model, number)
            arrays = {ROWS: side.steps.rows(model.dtype), **side.projector.arrays()}
            if side.multipliers is not None:
                arrays[MULTIPLIERS] = side.multipliers
            plain: dict[str, Array] = {name: one.numpy() for name, one in arrays.items()}
            found = KeptGradients(wanted, side.projector.told(), side.told or {}, plain)
            store.keep(number, found)
        return found


def multipliers_of(kept: KeptGradients) -> Tensor | None:
    """Return the multipliers (n,), where there are some."""
    import torch

    return torch.tensor(kept.arrays[MULTIPLIERS][:]) if MULTIPLIERS in kept.arrays else None


def products(rows: Array, targets: Tensor, where: slice = slice(None)) -> Tensor:
    """Return some of rows (n, k) times targets (t, k), (b, t) float64."""
    import numpy as np
    import torch

    start, stop, _ = where.indices(rows.shape[0])
    found = torch.empty(stop - start, len(targets), dtype=torch.float64)
    size = max(1, AT_ONCE // max(1, 8 * rows.shape[1]))
    for first in range(start, stop, size):
        last = min(first + size, stop)
        piece = np.array(rows[first:last], dtype=np.float64)
        found[first - start : last - start] = torch.from_numpy(piece) @ targets.T
    return found


def digest(checkpoint: Checkpoint) -> str:
    """Return a hash of a checkpoint's parameters and buffers."""
    import torch

    made = hashlib.blake2b(digest_size=16)
    for name, value in sorted(checkpoint.state.items()):
        made.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        made.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return made.hexdigest()
