"""What every estimator on reference models shares: which models it looks at, one after the other, and the sum of what they
bring.

A new one is one file with two classes. The estimator holds the options, and imports nothing heavy; its `effects` returns an
object of the other class, which says what one model brings and remembers, for one attribution, what is worth telling:

    class Mine(ReferenceEstimator):
        name: ClassVar[str] = "mine"
        strength: float = Field(1.0, description="...")

        def effects(self, material: Material) -> MineEffects:
            return MineEffects(self, material)

    class MineEffects(ModelEffects):
        def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
            ...  # yields (which queries, the effects (n, b) on them)

`values` and `details` are asked after every number of models that is to be told of: `self.material.references` are then the
models seen so far, and more may follow.

An estimator that follows a whole training rather than single checkpoints (a trajectory) overrides `of_reference` instead.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence, Reference
from estimators.kept_gradients import GradientStore
from workers.errors import ConfigError, DivergedError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from estimators.gradients.functional_model import Examples, Model
    from workers.task import GradientTask, Objective

_MASKS = zlib.crc32(b"estimators.dropout")
Block: TypeAlias = "tuple[slice, Tensor]"
"""Which queries, and the effects of all training examples on them: (n, b)."""


@dataclass(frozen=True)
class Material:
    """What an estimator on reference models works with, in the precision that it works in."""

    task: GradientTask
    measure: str
    train: Examples
    """The n training examples, with the factors on their losses."""
    queries: Examples
    """The t queries."""
    references: tuple[Reference, ...]
    """The reference models to use, each with at least one checkpoint."""
    precision: torch.dtype
    seed: int
    """Root of whatever is drawn."""
    parameters: tuple[str, ...] = ("*",)
    """Patterns of the names of the parameters that are differentiated."""
    dropout: int | None = None
    """How many thinned networks stand for each model; None for the model itself."""
    gradients: GradientStore = field(default_factory=GradientStore)
    """Where an estimator that is asked to keeps the projected gradients of the training examples."""

    @property
    def members(self) -> int:
        """How many networks stand for each model."""
        return self.dropout or 1

    def mask(self, reference: Reference, member: int) -> np.random.SeedSequence | None:
        """Return what a member's dropout masks are drawn from, at all checkpoints of a training; None without dropout."""
        if self.dropout is None:
            return None
        return np.random.SeedSequence(self.seed, spawn_key=(_MASKS, reference.seed, member))


class ReferenceEstimator(Estimator):
    """An estimator that looks at reference models: models trained on the full set, with checkpoints."""

    needs: ClassVar[frozenset[Need]] = frozenset({"checkpoints", "gradients"})

    differentiates_queries: ClassVar[bool] = True
    """Whether it takes the gradient of the measure at the queries."""

    models: int | None = Field(
        None,
        ge=1,
        description="how many reference models to use; null takes all there are; a list, such as [1, 2, 5], makes an "
        "attribution with each, named by it",
    )
    parameters: tuple[str, ...] = Field(
        ("*",),
        min_length=1,
        description="patterns of parameter names to differentiate, the others are held fixed: [head.*]",
    )
    dropout: int | None = Field(
        None,
        ge=1,
        description="thinned networks a model, averaged: so many dropout masks, each one for all examples; null drops nothing",
    )
    memory_gb: float = Field(2.0, gt=0, description="memory for gradients held at once, in GiB; changes no result")

    @property
    def budget(self) -> int:
        """The memory budget in bytes."""
        return int(self.memory_gb * 2**30)

    def check(self, evidence: Evidence) -> None:
        """Refuse a measure that cannot be differentiated, and dropout masks where nothing is dropped."""
        from estimators.gradients.functional_model import Examples
        from estimators.gradients.per_example import measure_to_differentiate

        task = evidence.differentiable()
        if self.dropout is not None:
            self.untrained(task, np.random.SeedSequence(0))
        if self.differentiates_queries:
            model = self.untrained(task)
            queries = Examples.queried(task, evidence.queries, model.dtype)
            measure_to_differentiate(task, evidence.measure, model, queries)

    def untrained(self, task: GradientTask, mask: np.random.SeedSequence | None = None) -> Model:
        """Return the task's model before any training, to look at its structure."""
        from estimators.gradients.functional_model import Model, precision_of
        from workers.randomness.streams import build_module

        dtype = precision_of(task)
        module, _ = build_module(task.module, 0, dtype)
        return Model(task, Checkpoint(0, 0, 0.0, dict(module.state_dict())), dtype, self.parameters, mask)

    @abstractmethod
    def effects(self, material: Material) -> ModelEffects:
        """Return what will say, model by model, what each brings. Raises ConfigError for a task that it cannot work on."""

    def attribute(self, evidence: Evidence) -> Attribution:
        """Add up what every reference model brings. Raises ConfigError for too few models, DivergedError for a diverged one."""
        return self._effects(evidence).attribution(self.name)

    def attributions(self, evidence: Evidence, counts: Collection[int]) -> Iterator[tuple[int, Attribution]]:
        """Yield (k, the attribution from the first k reference models), ascending, for every k in `counts`.

        All in one pass over the largest number of models; each equals what `attribute` returns with `models: k`. Raises what
        `attribute` raises.
        """
        largest = self.model_copy(update={"models": max(counts)})
        yield from largest._effects(evidence).attributions(self.name, counts)

    def _effects(self, evidence: Evidence) -> ModelEffects:
        return self.effects(self.material(evidence, self.references(evidence)))

    def references(self, evidence: Evidence) -> tuple[Reference, ...]:
        """Return the reference models to use, each with checkpoints. Raises ConfigError when there are too few."""
        found = tuple(reference for reference in evidence.references if reference.checkpoints)
        wanted = self.models or 1
        if len(found) < wanted:
            raise ConfigError(
                f"estimator {self.name!r} needs {wanted} reference model(s) trained on the full set with checkpoints, "
                f"the sweep has {len(found)}"
            )
        return found[: self.models]

    def dtype(self, task: GradientTask) -> torch.dtype:
        """Return the floating type to work in: by default the one that the task is trained in."""
        from estimators.gradients.functional_model import precision_of

        return precision_of(task)

    def material(self, evidence: Evidence, references: tuple[Reference, ...]) -> Material:
        """Return what there is to work with. Raises ConfigError for a task whose gradients cannot be taken."""
        from estimators.gradients.functional_model import Examples

        task = evidence.differentiable()
        precision = self.dtype(task)
        train, queries = Examples.training(task, precision), Examples.queried(task, evidence.queries, precision)
        known = (task, evidence.measure, train, queries, references, precision, evidence.seed)
        return Material(*known, self.parameters, self.dropout, evidence.gradients)


class ModelEffects(ABC):
    """What the reference models bring to one attribution, and what is remembered from one to the next."""

    def __init__(self, material: Material):
        self.material = material

    def chosen(self, reference: Reference) -> Iterable[tuple[Checkpoint, float]]:
        """Return the checkpoints to look at, each with the weight of what it brings: the last one, with weight 1."""
        return [(reference.checkpoints[-1], 1.0)]

    @abstractmethod
    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield what one model brings, some queries at a time; queries that are left out get nothing from it."""

    def of_reference(self, reference: Reference) -> Iterator[Block]:
        """Yield what one training brings: that of its chosen checkpoints, weighted, a mean over the networks that stand for each.

        With `dropout` these are thinned networks in place of models of their own (dropout ensembles: Deng et al. 2024, "Efficient
        ensembles improve training data attribution").
        """
        for model, checkpoint, weight in self.networks(reference):
            for where, block in self.of_model(model, checkpoint):
                yield where, block if weight == 1 else weight * block

    def networks(self, reference: Reference) -> Iterator[tuple[Model, Checkpoint, float]]:
        """Yield every network that stands for a reference, the checkpoint that it is of, and its weight."""
        members = self.material.members
        for checkpoint, given in self.chosen(reference):
            for member in range(members):
                yield self.model(checkpoint, self.material.mask(reference, member)), checkpoint, given / members

    def values(self, total: Tensor) -> Tensor:
        """Return tau (n, t) from the sum over the references (n, t) float64: their mean."""
        return total / len(self.material.references)

    def utility(self, values: Tensor) -> NDArray[np.floating[Any]] | None:
        """Return the values of the utility (n,), where the estimator gives them."""
        return None

    def details(self) -> Mapping[str, Any]:
        """Return what is worth telling beside the values, once all models were seen."""
        return {}

    def model(self, checkpoint: Checkpoint, mask: np.random.SeedSequence | None = None) -> Model:
        """Return the task's model at a checkpoint, as a function of its parameters; thinned by a mask."""
        from estimators.gradients.functional_model import Model

        return Model(self.material.task, checkpoint, self.material.precision, self.material.parameters, mask)

    def measure(self, model: Model) -> Objective:
        """Return the measure, to be differentiated at the queries. Raises ConfigError for one without a gradient."""
        from estimators.gradients.per_example import measure_to_differentiate

        return measure_to_differentiate(self.material.task, self.material.measure, model, self.material.queries)

    def attribution(self, name: str) -> Attribution:
        """Go through all references; the estimator's `name` is for errors."""
        ((_, made),) = self.attributions(name, {len(self.material.references)})
        return made

    def attributions(self, name: str, counts: Collection[int]) -> Iterator[tuple[int, Attribution]]:
        """Go through the references, and yield (k, what the first k bring) for every k in `counts`."""
        import torch

        material = self.material
        total = torch.zeros(len(material.train), len(material.queries), dtype=torch.float64)
        for seen, reference in enumerate(material.references, 1):
            self.material = material
            for where, block in self.of_reference(reference):
                total[:, where] += block.to(total.device)
            if seen in counts:
                self.material = replace(material, references=material.references[:seen])
                yield (
                    seen,
                    self.wrapped(self.values(total if seen == len(material.references) else total.clone()), name),
                )
        self.material = material

    def wrapped(self, values: Tensor, name: str) -> Attribution:
        """Return values (n, t) as float32. Raises DivergedError when one is not finite: a reference model diverged."""
        import torch

        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise DivergedError(f"estimator {name!r}: {bad} of {values.numel()} attributions are not finite")
        utility = self.utility(values)
        return Attribution(
            values.float().numpy(),
            models=len(self.material.references),
            details=deepcopy(dict(self.details())),  # it goes on growing with the models
            utility=None if utility is None else utility.astype(np.float32),
        )
