"""One step of a training as a function: of its parameters, of the weights of its examples, and of what it tells its norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from estimators.trajectories.pull_back import Tensors
from estimators.trajectories.tracked_norms import TrackedNorm, refuse_other_norms
from workers.runs import Run
from workers.task import DifferentiableTask
from workers.training.batchable_attention import batchable_attention
from workers.training.course import Course, Feed

Curvature: TypeAlias = Literal["hessian", "gauss_newton", "none"]
"""What stands for the derivative of a step's gradient in the parameters: it, the outer products of single gradients, nothing."""


class Portion(NamedTuple):
    """One batch of a step, forward and once backward, with the graph to go back over."""

    weights: Tensor
    """(b,) the weights of its examples, a leaf of the graph."""
    losses: Tensor
    """(b,)"""
    gradients: list[Tensor]
    """Of what the batch brings to the step's loss, those that came, by the places `came`."""
    came: list[int]
    entering: dict[str, tuple[Tensor, Tensor]]
    """Mean and variance that each norm is told."""


class Twin(Course):
    """A training whose steps can be differentiated: its normalizations tell what they track, its parameters are leaves."""

    def __init__(self, task: DifferentiableTask, run: Run, name: str):
        """Raises ConfigError, in the estimator's name, for a module with running statistics that cannot be followed."""
        super().__init__(task, run)
        refuse_other_norms(self.module, name)
        self.tracked = TrackedNorm.within(self.module)
        if self.norms:
            self.norms = list(self.tracked.values())
        self.leaves = {name: value for name, value in self.module.named_parameters() if value.requires_grad}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Have a moment's parameters and buffers."""
        self.module.load_state_dict(state)

    def portion(self, feed: Feed) -> Portion:
        """Take a batch forward, and its loss backward, with a graph."""
        given = self.weights(feed)
        count = len(feed.portion.examples)
        weights = torch.ones(count, dtype=self.dtype) if given is None else given.clone()
        weights.requires_grad_()
        self.module.train()
        with batchable_attention():
            outputs, targets = self.outputs(feed, given)
            losses = self.task.loss(outputs, targets)
        found = torch.autograd.grad(
            (losses * weights).mean() * feed.portion.share,
            list(self.leaves.values()),
            create_graph=True,
            allow_unused=True,
        )
        came = [place for place, one in enumerate(found) if one is not None]
        entering = {name: norm.entering for name, norm in self.tracked.items() if norm.entering is not None}
        return Portion(weights, losses, [found[place] for place in came], came, entering)


class StepGraph:
    """The gradient g of one step, and the derivatives of <c, g> for any number of cotangents c.

    They are taken by reverse over reverse differentiation, so that whatever couples the examples of a batch is in them. With `b`
    the step's running statistics are written: a batch's mean and variance depend on the parameters too.
    """

    def __init__(self, twin: Twin, state: Mapping[str, Tensor], feeds: Sequence[Feed], curvature: Curvature):
        twin.load(state)
        self.twin, self.feeds, self.curvature = twin, feeds, curvature
        self.names = list(twin.leaves)
        self.portions = [twin.portion(feed) for feed in feeds]
        self._tracked_before = int(
            next((v for k, v in state.items() if k.endswith("num_batches_tracked")), torch.tensor(0))
        )

    @property
    def gradients(self) -> Tensors:
        """The step's gradient by parameter, of those that have one."""
        found: Tensors = {}
        for portion in self.portions:
            for place, value in zip(portion.came, portion.gradients, strict=True):
                name = self.names[place]
                found[name] = found[name] + value.detach() if name in found else value.detach()
        return found

    def pull(self, worth: Tensors, statistics: Tensors) -> tuple[Tensors, list[Tensor]]:
        """Return the derivatives of sum of <worth, g> in the parameters (Q, ...), and in each batch's weights (Q, b).

        `statistics` are the cotangents (Q, c) of the running statistics after the step: they are taken back over it, in place.
        """
        found: Tensors = {}
        of_weights: list[Tensor] = []
        for number in reversed(range(len(self.portions))):
            entering = self._statistics(number, statistics) if self.curvature == "hessian" else {}
            of_parameters, weights = self._pull_portion(self.portions[number], worth, entering)
            of_weights.insert(0, weights)
            for name, value in of_parameters.items():
                found[name] = found[name] + value if name in found else value
        return found, of_weights

    def _statistics(self, number: int, worth: Tensors) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what a batch's means and variances are worth; what went in before them is worth so much less, in place."""
        found = {}
        for name in self.portions[number].entering:
            mean, variance = worth[f"{name}.running_mean"], worth[f"{name}.running_var"]
            factor = self.twin.tracked[name].factor(self._tracked_before + number)
            found[name] = mean * factor, variance * factor
            mean.mul_(1 - factor)
            variance.mul_(1 - factor)
        return found

    def _pull_portion(
        self, portion: Portion, worth: Tensors, entering: Mapping[str, tuple[Tensor, Tensor]]
    ) -> tuple[Tensors, Tensor]:
        outputs = list(portion.gradients)
        cotangents = [worth[self.names[place]] for place in portion.came]
        for name, values in portion.entering.items():
            if name in entering:
                pairs = [(value, one) for value, one in zip(values, entering[name], strict=True) if value.requires_grad]
                outputs += [value for value, _ in pairs]
                cotangents += [one for _, one in pairs]
        exact = self.curvature == "hessian"
        leaves = list(self.twin.leaves.values()) if exact else []
        of_weights, *rest = batched(outputs, [portion.weights, *leaves], cotangents)
        assert of_weights is not None
        if self.curvature == "gauss_newton":
            rest = batched([portion.losses], list(self.twin.leaves.values()), [of_weights * portion.weights.detach()])
        of_parameters = {name: value for name, value in zip(self.names, rest, strict=False) if value is not None}
        return of_parameters, of_weights


def batched(outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Any]:
    """Return sum over outputs of <cotangent, d output / d input> for every input, (Q, *shape), or None where there is none."""
    given = [(one, cotangent) for one, cotangent in zip(outputs, cotangents, strict=True) if one.requires_grad]
    return list(
        torch.autograd.grad(
            [one for one, _ in given],
            list(inputs),
            [cotangent for _, cotangent in given],
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
    )
