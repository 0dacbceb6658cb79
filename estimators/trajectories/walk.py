"""The adjoint of a training: one walk backwards through its steps, for a block of queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from estimators.trajectories.pull_back import Cotangents, PullBack, Tensors, moments_of
from estimators.trajectories.step_graph import Curvature, StepGraph, Twin, batched
from workers.data.nested import Nested
from workers.runs import Checkpoint
from workers.task import Objective
from workers.training.course import Feed
from workers.training.decay import undecayed
from workers.training.replay import Replay

_CHUNK = 2**25
"""Bytes of cotangents that are taken back over a step together: more of them leave the processor's cache."""
_QUERIES = 32
"""Queries whose measures are differentiated together at the end."""


@dataclass(frozen=True)
class Asked:
    """The queries of one walk."""

    objective: Objective
    batch: Callable[[slice], Nested]
    """Reads some of them."""
    count: int


class Walk:
    """Goes through one training backwards."""

    def __init__(self, replay: Replay, twin: Twin, final: Checkpoint, curvature: Curvature):
        self.replay, self.twin, self.final, self.curvature = replay, twin, final, curvature
        self.recipe = twin.recipe
        self.undecayed = undecayed(self.recipe, dict(twin.module.named_parameters()))
        moments_of(self.recipe)

    def bytes_of(self) -> int:
        """Return what the cotangents of one query take."""
        copies = 1 + moments_of(self.recipe) + (self.recipe.ema is not None)
        return copies * sum(value.numel() * value.element_size() for value in self.twin.leaves.values())

    def effects(self, asked: Asked) -> Tensor:
        """Return d f_q / d w_i (n, count) at w = 1: summed over all visits, with the weight that the run gives the example."""
        worth = self.at_the_end(asked)
        found = torch.zeros(self.twin.task.n, asked.count, dtype=torch.float64)
        for moment, feeds in self.replay.backwards():
            graph = StepGraph(self.twin, moment.state, feeds, self.curvature)
            rate = self.replay.course.rates[moment.step]
            back = PullBack(self.recipe, self.undecayed, moment, graph.gradients, rate)
            for where, of_weights in self.take_back(graph, back, worth, asked.count):
                self._collect(found[:, where], feeds, of_weights)
        return found

    def take_back(
        self, graph: StepGraph, back: PullBack, worth: Cotangents, count: int
    ) -> list[tuple[slice, list[Tensor]]]:
        """Take the cotangents of `count` queries back over a step, in place; return those of its weights."""
        one = sum(value.numel() * value.element_size() for value in self.twin.leaves.values())
        found = []
        for where in _slices(count, max(1, _CHUNK // one)):
            part = worth[where]
            of_parameters, of_weights = graph.pull(back(part), part.statistics)
            for name, value in of_parameters.items():
                part.parameters[name].add_(value)
            found.append((where, of_weights))
        return found

    def _collect(self, found: Tensor, feeds: Sequence[Feed], of_weights: Sequence[Tensor]) -> None:
        """Add what a step's weights are worth to the examples' (n, Q), for weights that multiply those which the run gives."""
        given = [self.twin.weights(feed) for feed in feeds]
        parts = [one.T if w is None else one.T * w.unsqueeze(1) for one, w in zip(of_weights, given, strict=True)]
        if (
            self.twin.run.normalize == "weight"
        ):  # a weight is divided by the mean weight of its step, which it raises too
            mean = torch.cat(parts).sum(0) / sum(len(one) for one in parts)
            parts = [one - mean * (1 if w is None else w.unsqueeze(1)) for one, w in zip(parts, given, strict=True)]
        for feed, part in zip(feeds, parts, strict=True):
            found.index_add_(0, feed.portion.examples, part.double())

    # The end of the training

    def at_the_end(self, asked: Asked) -> Cotangents:
        """Return what the state after the last step is worth to every query."""
        buffers = [f"{name}.{kind}" for name in self.twin.tracked for kind in ("running_mean", "running_var")]
        buffers = [name for name in buffers if name in self.final.state]
        found = [self._measured(asked, where, buffers) for where in _slices(asked.count, _QUERIES)]
        of_parameters, statistics = (
            {name: torch.cat([one[k][name] for one in found]) for name in found[0][k]} for k in (0, 1)
        )
        if self.recipe.batch_norm == "recomputed" and buffers and self.curvature == "hessian":
            for name, value in self._recomputed(statistics).items():
                of_parameters[name] += value
        if self.recipe.batch_norm == "recomputed":
            statistics = {name: torch.zeros_like(value) for name, value in statistics.items()}
        worth = Cotangents(of_parameters, statistics=statistics)
        if self.recipe.ema is not None:
            worth.average, worth.parameters = of_parameters, _zeros(of_parameters)
        moments = moments_of(self.recipe)
        worth.first = _zeros(of_parameters) if moments else {}
        worth.second = _zeros(of_parameters) if moments > 1 else {}
        return worth

    def _measured(self, asked: Asked, where: slice, buffers: Sequence[str]) -> tuple[Tensors, Tensors]:
        """Return the derivatives of some measures (Q, ...) in the finished model's parameters and running statistics."""
        self.twin.load(self.final.state)
        module = self.twin.module.eval()
        held = dict(module.named_buffers())
        leaves = self.twin.leaves | {name: held[name].requires_grad_() for name in buffers}
        values = asked.objective(module, asked.batch(where))
        ones = torch.eye(len(values), dtype=values.dtype)
        found = batched([values], list(leaves.values()), [ones])
        for name in buffers:
            held[name].requires_grad_(False)
        whole = {
            name: torch.zeros(len(values), *leaf.shape, dtype=leaf.dtype) if value is None else value
            for (name, leaf), value in zip(leaves.items(), found, strict=True)
        }
        return {name: whole[name] for name in self.twin.leaves}, {name: whole[name] for name in buffers}

    def _recomputed(self, statistics: Tensors) -> Tensors:
        """Return what the parameters are worth by way of statistics that are recomputed with them at the end (Q, ...).

        As `workers.training.statistics`: each is the mean, over the parts of what was trained on, of a batch's.
        """
        twin = self.twin
        twin.load(self.final.state)
        twin.module.eval()
        for norm in twin.tracked.values():
            norm.train()
        trained_on = twin.batches.trained_on
        parts = np.array_split(trained_on, -(-len(trained_on) // self.recipe.batch_size))
        total: Tensors = {}
        for part in parts:
            x, _ = twin.examples.read(torch.from_numpy(part))
            for norm in twin.tracked.values():
                norm.present = torch.ones((), dtype=torch.bool)
            twin.task.call(twin.module, x)
            outputs: list[Tensor] = []
            cotangents: list[Tensor] = []
            for name, norm in twin.tracked.items():
                if norm.entering is not None:
                    outputs += norm.entering
                    cotangents += [
                        statistics[f"{name}.{kind}"] / len(parts) for kind in ("running_mean", "running_var")
                    ]
            found = batched(outputs, list(twin.leaves.values()), cotangents)
            for name, value in zip(twin.leaves, found, strict=True):
                if value is not None:
                    total[name] = total[name] + value if name in total else value
        return total


def _zeros(like: Mapping[str, Tensor]) -> Tensors:
    return {name: torch.zeros_like(value) for name, value in like.items()}


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
