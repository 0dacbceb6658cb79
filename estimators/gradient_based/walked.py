"""What estimators share that are one walk backwards through a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from estimators.evidence import Evidence, Reference
from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.errors import ConfigError, one_line
from workers.runs import Checkpoint, Run

if TYPE_CHECKING:
    from estimators.gradients.functional_model import Model
    from estimators.trajectories.step_graph import Curvature
    from estimators.trajectories.walk import Asked, Walk
    from workers.task import DifferentiableTask, GradientTask
    from workers.training.replay import Replay


class WalkEstimator(ReferenceEstimator):
    """An estimator that replays each reference model's training, and walks back through its steps.

    It follows the whole training, so that all parameters are differentiated, and no networks are thinned: `parameters` and
    `dropout` stay what they are by default.
    """

    drift: float = Field(
        0.0,
        ge=0,
        description="largest relative difference of a replayed from a kept checkpoint that is accepted; 0: bits must be the same",
    )

    @property
    def curvature(self) -> Curvature:
        """What stands for the Hessian of a step's loss."""
        return "hessian"

    def check(self, evidence: Evidence) -> None:
        """Refuse, before anything is trained, what cannot be replayed or taken backwards."""
        task = trained_by_us(self, evidence.differentiable())
        super().check(evidence)
        _refuse_changing(task, self.name)
        self._try(task)

    def _try(self, task: DifferentiableTask) -> None:
        """Take one step backwards. Raises ConfigError for a module that cannot be differentiated twice."""
        import torch

        from estimators.trajectories.step_graph import StepGraph, Twin

        twin = Twin(task, Run(0, np.arange(task.n), 0), self.name)
        statistics = {
            f"{name}.{kind}": torch.zeros(1, norm.num_features, dtype=twin.dtype)
            for name, norm in twin.tracked.items()
            for kind in ("running_mean", "running_var")
        }
        try:
            graph = StepGraph(twin, twin.state(), twin.next_step(), self.curvature)
            graph.pull({name: value.unsqueeze(0) for name, value in graph.gradients.items()}, statistics)
        except RuntimeError as error:
            raise ConfigError(f"{self.name}: a step cannot be taken backwards: {one_line(error)}") from error

    def effects(self, material: Material) -> WalkEffects:
        """Return what walks. Raises ConfigError for a task whose training is not ours."""
        trained_by_us(self, material.task)
        return WalkEffects(self, material)

    def foresee(self, evidence: Evidence) -> float | None:
        """Return the seconds of one reference model, from a few steps of a made up one."""
        task = trained_by_us(self, evidence.differentiable())
        last = Checkpoint(task.recipe.epochs, 0, 0.0, {})
        effects = self.effects(self.material(evidence, (Reference(0, (last,)),)))
        return effects.foreseen()


class WalkEffects(ModelEffects):
    """The effects of all examples by one walk a model, for as many queries together as the memory holds."""

    def __init__(self, options: WalkEstimator, material: Material):
        super().__init__(material)
        self._options, self._steps = options, 0

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Not asked for: a training is looked at, no checkpoint by itself."""
        raise NotImplementedError

    def of_reference(self, reference: Reference) -> Iterator[Block]:
        """Yield the derivatives of some queries' measures in the weights of all examples."""
        from estimators.trajectories.walk import Walk

        replay = replay_of(self._options, self.material, reference, self._options.drift)
        final = reference.checkpoints[-1]
        if final.epoch != replay.recipe.epochs:
            raise ConfigError(
                f"{self._options.name}: the last checkpoint of the reference model of seed {reference.seed} is of epoch "
                f"{final.epoch}, and its training ends after {replay.recipe.epochs}"
            )
        self._steps = replay.steps
        walk = Walk(replay, self._twin(reference), final, self._options.curvature)
        for where in self._blocks(walk):
            yield where, walk.effects(self._asked(walk, where))

    def foreseen(self) -> float:
        """Return the seconds that one model takes, by a few steps from its beginning."""
        from estimators.trajectories.foresight import seconds_of
        from estimators.trajectories.walk import Walk
        from workers.training.replay import Replay

        (reference,) = self.material.references
        twin = self._twin(reference)
        replay = Replay(twin.task, twin.run, ())
        start = Checkpoint(twin.recipe.epochs, 0, 0.0, replay.course.state())
        walk = Walk(replay, twin, start, self._options.curvature)
        return sum(seconds_of(walk, self._asked(walk, where)) for where in self._blocks(walk))

    def _twin(self, reference: Reference) -> Any:
        from estimators.trajectories.step_graph import Twin

        return Twin(
            trained_by_us(self._options, self.material.task), run_of(self.material, reference), self._options.name
        )

    def _blocks(self, walk: Walk) -> Iterator[slice]:
        from estimators.gradients.per_example import rows_within, slices

        return slices(len(self.material.queries), rows_within(self._options.budget, walk.bytes_of()))

    def _asked(self, walk: Walk, where: slice) -> Asked:
        from estimators.trajectories.walk import Asked

        queries = self.material.queries[where]
        objective = self.material.task.objective(self.material.measure)
        return Asked(objective, lambda some: queries[some].batch(), len(queries))

    def details(self) -> Mapping[str, Any]:
        """Return the number of steps that were gone through."""
        return {"steps": self._steps}


def trained_by_us(options: ReferenceEstimator, task: GradientTask) -> DifferentiableTask:
    """Return a task whose training can be taken again, a step at a time. Raises ConfigError for others, and for options."""
    from workers.task import DifferentiableTask

    if not isinstance(task, DifferentiableTask):
        raise ConfigError(
            f"{options.name} replays the training, which only a differentiable task's can be; this task trains itself"
        )
    for key, default in (("parameters", ("*",)), ("dropout", None)):
        if getattr(options, key) != default:
            raise ConfigError(f"{options.name}: {key} cannot be chosen: the training is followed as it was")
    return task


def run_of(material: Material, reference: Reference) -> Run:
    """Return the run that a reference model is of."""
    return Run(0, np.arange(material.task.n), reference.seed, (), reference.order, reference.normalize)


def replay_of(options: ReferenceEstimator, material: Material, reference: Reference, drift: float) -> Replay:
    """Return a reference model's training, to be taken again. Raises TaskError where the recipe is not the one it had."""
    from workers.training.replay import Replay

    task = trained_by_us(options, material.task)
    return Replay(task, run_of(material, reference), reference.checkpoints, drift)


def _refuse_changing(task: DifferentiableTask, name: str) -> None:
    """Raise ConfigError for training examples that are others when they are read again: no seed of ours governs that."""
    import torch

    from workers.data.nested import tensors

    examples, few = task.examples("train"), torch.arange(min(task.n, 4))
    pairs = zip(tensors(examples.read(few)), tensors(examples.read(few)), strict=True)
    if not all(torch.equal(one, other) for one, other in pairs):
        raise ConfigError(
            f"{name}: training examples change from one reading to the next, so that steps cannot be replayed; expected data "
            "without random transformations of its own (recipe.crop and recipe.flip are drawn from the run's seed)"
        )
