"""Train any module in lockstep: parameters, buffers and optimizer state stacked along a model axis, one `torch.func` call a step.

No batch is ever padded. Models advance independently: at each turn the largest group of models whose next batches have the
same size takes a step together, so unequal subsets, statistics over the batch and last batches are those of training alone.

The step can be compiled (torch.compile), for one number of models and a few sizes of a batch. A smaller group is then filled up
with copies whose results are dropped, batches of other sizes are taken model by model, and so are outputs: whatever a model's
neighbours, the same operations make it, to the last bit.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch._dynamo
import torch._inductor.config
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from workers.packed.accumulation import Accumulator
from workers.packed.averaging import StackedAverage
from workers.packed.optimizers import StackedOptimizer
from workers.randomness.augmentation import apply, draw
from workers.randomness.dropout import KeyedDropout
from workers.randomness.streams import Streams, build_module
from workers.recipe import Recipe
from workers.runs import Checkpoint, Queries, Run
from workers.task import DifferentiableTask
from workers.training import precision
from workers.training.batches import Batch, cut
from workers.training.precision import DTYPES, forward, normalize_in_full

State = dict[str, Tensor]


@dataclass
class _Member:
    """One model of a lockstep: its run, its streams and how far it is."""

    run: Run
    streams: Streams
    rates: NDArray[np.float64]
    keys: NDArray[np.int32]
    """(batches, dropouts)."""
    epoch: int = 0
    step: int = 0
    seen: int = 0
    """Batches taken."""
    batches: deque[Batch] = field(default_factory=deque)
    """What is left of the present epoch."""
    checkpoints: list[Checkpoint] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.step == len(self.rates)

    def next_epoch(self, recipe: Recipe) -> None:
        """Draw the order of the next epoch if the present one is used up."""
        if not self.batches and not self.done:
            self.batches.extend(cut(torch.from_numpy(self.streams.order.orders(self.run.subset, 1)[0]), recipe))

    def take(self) -> Batch:
        """Return the next batch, and advance."""
        batch = self.batches.popleft()
        self.seen += 1
        self.step += batch.ends_step
        self.epoch += not self.batches
        return batch


class Stacked:
    """Trains and measures runs of one task in lockstep on one device."""

    def __init__(self, task: DifferentiableTask, device: torch.device | str = "cpu", compiled: int = 0):
        """With `compiled` the step of so many models is compiled when it is first taken: seconds, for each batch size."""
        self.task, self.recipe, self.device, self.compiled = task, task.recipe, torch.device(device), compiled
        self.dtype = DTYPES[task.recipe.precision]
        self.inputs = precision.cast(task.train_inputs, self.dtype, device)
        self.targets = precision.cast(task.train_targets, self.dtype, device)
        weights = task.train_weights
        self.weights = None if weights is None else weights.to(device, self.dtype)
        places = (0, 0, 0, 0, None if weights is None else 0)
        self.slopes = vmap(grad(self._loss, has_aux=True), in_dims=places, randomness="error")

    @cached_property
    def template(self) -> nn.Module:
        """The module that is called with every model's parameters."""
        return self._built[0]

    @cached_property
    def dropouts(self) -> list[str]:
        """Names of its dropout layers' key buffers."""
        return _names_of(*self._built)

    @cached_property
    def _built(self) -> tuple[nn.Module, list[KeyedDropout]]:
        module, dropouts = build_module(self.task.module, 0, self.dtype)
        normalize_in_full(self.recipe, module.to(self.device))
        return module, dropouts

    def _loss(self, parameters: State, buffers: State, x: Tensor, y: Tensor, w: Tensor | None) -> tuple[Tensor, State]:
        """Mean loss of one model on its batch, and its buffers afterwards (a normalization updates them in place)."""
        fresh = {name: value.clone() for name, value in buffers.items()}
        call = partial(functional_call, self.template, (parameters, fresh))
        losses = self.task.loss(forward(self.recipe, self.device, call, x), y)
        return (losses if w is None else losses * w).mean(), fresh

    def compiles(self, size: int) -> bool:
        """Whether the step on batches of this size is compiled: whole batches, and the last of the subsets that designs have."""
        n, batch = self.task.n, self.recipe.batch_size
        return bool(self.compiled) and size in {batch, *(m % batch for m in (n // 2, n - 1, n))}

    def narrow(self) -> None:
        """From now on compile for half as many models: groups are filled up to that, however small their packs."""
        self.compiled = max(self.compiled // 2, min(self.compiled, 1))

    @cached_property
    def compiled_slopes(self) -> Any:
        """`slopes`, compiled for the shapes it is called with."""
        # The limit counts all trainers of a process, and beyond it a step would be taken uncompiled, with other bits.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        torch._inductor.config.compile_threads = 1  # a worker has its cores, and starts no processes beside itself
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where there is no GPU
        return torch.compile(self.slopes, dynamic=False)

    def train(self, runs: Sequence[Run]) -> Lockstep:
        """Train the runs together; return their models."""
        lockstep = Lockstep(self, runs)
        lockstep.train()
        return lockstep


class Lockstep:
    """Models in training: stacked state, and one member a model."""

    def __init__(self, trainer: Stacked, runs: Sequence[Run]):
        self.trainer, self.recipe = trainer, trainer.recipe
        streams = [Streams(run.seed) for run in runs]
        built = [build_module(trainer.task.module, stream.initial, trainer.dtype)[0] for stream in streams]
        self.template, self.dropouts = trainer.template, trainer.dropouts
        self.parameters, self.buffers = _stack(built, trainer.device)
        self.optimizer = StackedOptimizer(self.recipe, self.parameters, dict(built[0].named_parameters()))
        self.accumulator = Accumulator(self.parameters) if self.recipe.accumulate > 1 else None
        self.average = StackedAverage(self.recipe.ema, self.parameters) if self.recipe.ema else None
        self.members = [self._member(run, stream) for run, stream in zip(runs, streams, strict=True)]

    def _member(self, run: Run, streams: Streams) -> _Member:
        rates = self.recipe.learning_rates(len(run.subset))
        batches = self.recipe.epochs * self.recipe.batches_per_epoch(len(run.subset))
        return _Member(run, streams, rates, streams.dropout_keys(batches, len(self.dropouts)))

    def train(self) -> None:
        """Take every step of every model. With the recipe's `ema` its end, and the last epoch's checkpoint, are the average."""
        self.template.train()
        for place, member in enumerate(self.members):
            self._keep(place, member)
        while group := self._largest_group():
            self._step(group)

    def _largest_group(self) -> list[int]:
        """Return the places of the models, as many as possible, whose next batches are alike; empty when all are done.

        Alike are batches of one size after which all of the models step, or none.
        """
        alike: dict[tuple[int, bool], list[int]] = {}
        for place, member in enumerate(self.members):
            member.next_epoch(self.recipe)
            if not member.done:
                following = member.batches[0]
                alike.setdefault((len(following.examples), following.ends_step), []).append(place)
        return max(alike.values(), key=len, default=[])

    def _step(self, group: list[int]) -> None:
        members = [self.members[place] for place in group]
        compiled = self.trainer.compiles(len(members[0].batches[0].examples))
        if self.trainer.compiled and not compiled and len(group) > 1:
            for place in group:
                self._step([place])
            return
        steps = [member.step for member in members]
        where = None if len(group) == len(self.members) else torch.tensor(group, device=self.trainer.device)
        self._set_dropout(members, where)
        taken = [member.take() for member in members]
        batches = torch.stack([batch.examples for batch in taken]).to(self.trainer.device)
        parameters, buffers = _pick(self.parameters, where), _pick(self.buffers, where)
        x, y = self.trainer.inputs[batches], self.trainer.targets[batches]
        if self.recipe.crop or self.recipe.flip:
            x = self._augment(x, members)
        w = None if self.trainer.weights is None else self.trainer.weights[batches]
        take = self._slopes_compiled if compiled else self.trainer.slopes
        gradients, changed = take(parameters, buffers, x, y, w)
        _put(self.buffers, where, changed)
        if self.accumulator:
            gradients = self.accumulator.add(gradients, where, [batch.share for batch in taken])
        if taken[0].ends_step:
            self._descend(gradients, where, members, steps)
        for place, member in zip(group, members, strict=True):
            if not member.batches:
                if member.done and self.average:
                    self.average.finish(place)
                self._keep(place, member)

    def _descend(
        self, gradients: State, where: Tensor | None, members: Sequence[_Member], steps: Sequence[int]
    ) -> None:
        """Take the optimizer step of the models at `where`, which have taken so many before."""
        rates = torch.tensor([member.rates[step] for member, step in zip(members, steps, strict=True)])
        self.optimizer.step(gradients, where, rates.to(self.trainer.device, self.trainer.dtype), steps)
        if self.average:
            self.average.follow(where, steps)
        if self.accumulator:
            self.accumulator.begin(where)

    def _slopes_compiled(
        self, parameters: State, buffers: State, x: Tensor, y: Tensor, w: Tensor | None
    ) -> tuple[State, State]:
        """Return what `slopes` does, from a group filled up to the compiled number of models."""
        models, missing = len(x), self.trainer.compiled - len(x)

        def fill(value: Tensor) -> Tensor:
            return torch.cat([value, value[-1:].expand(missing, *value.shape[1:])]) if missing else value

        states = [{name: fill(value) for name, value in state.items()} for state in (parameters, buffers)]
        found = self.trainer.compiled_slopes(*states, fill(x), fill(y), None if w is None else fill(w))
        gradients, changed = ({name: value[:models] for name, value in state.items()} for state in found)
        return gradients, changed

    def _set_dropout(self, members: Sequence[_Member], where: Tensor | None) -> None:
        """Write the keys of the members' next step where the dropout layers look for them."""
        for layer, name in enumerate(self.dropouts):
            keys = np.array([member.keys[member.seen, layer] for member in members])
            _put(self.buffers, where, {name: torch.from_numpy(keys).to(self.trainer.device)})

    def _augment(self, x: Tensor, members: Sequence[_Member]) -> Tensor:
        """Augment (g, b, c, h, w), every model's batch by draws from its own stream."""
        groups, count = x.shape[:2]
        drawn = [draw(count, self.recipe.crop, self.recipe.flip, member.streams.augmentation) for member in members]
        offsets = None if drawn[0][0] is None else torch.cat([one for one, _ in drawn if one is not None])
        flips = None if drawn[0][1] is None else torch.cat([one for _, one in drawn if one is not None])
        return apply(x.flatten(0, 1), self.recipe.crop, offsets, flips).reshape(groups, count, *x.shape[2:])

    def state(self, place: int) -> State:
        """Return a copy, on the CPU, of the parameters and persistent buffers of one model."""
        whole = {**self.parameters, **self.buffers}
        return {name: whole[name][place].detach().cpu().clone() for name in self.template.state_dict()}

    def _keep(self, place: int, member: _Member) -> None:
        if member.epoch in member.run.checkpoint_epochs:
            rate = float(member.rates[max(member.step - 1, 0)])
            member.checkpoints.append(Checkpoint(member.epoch, member.step, rate, self.state(place)))

    @torch.no_grad()
    def outputs(self, inputs: Tensor, batch: int = 1024) -> Tensor:
        """Return every model's outputs in evaluation mode, (K, b, ...)."""
        self.template.eval()
        cast = (precision.cast(x, self.trainer.dtype, self.trainer.device) for x in torch.split(inputs, batch))
        return torch.cat([self._evaluate(x) for x in cast], dim=1)

    def _evaluate(self, x: Tensor) -> Tensor:
        def call(parameters: State, buffers: State) -> Tensor:
            outputs: Tensor = functional_call(self.template, (parameters, buffers), (x,))
            return outputs

        if self.trainer.compiled:
            places = range(len(self.members))
            return torch.stack([call(_at(self.parameters, place), _at(self.buffers, place)) for place in places])
        together: Tensor = vmap(call)(self.parameters, self.buffers)
        return together

    @torch.no_grad()
    def measure(self, names: Sequence[str], queries: Queries) -> list[dict[str, NDArray[np.float32]]]:
        """Return every model's measures, (t,) float32 each."""
        task = self.trainer.task
        inputs, targets = task.examples(queries)
        y = precision.cast(targets, self.trainer.dtype, self.trainer.device)
        return [
            {name: task.measurement(name)(one, y).float().cpu().numpy() for name in names}
            for one in self.outputs(inputs).unbind()
        ]


def _stack(modules: Sequence[nn.Module], device: torch.device) -> tuple[State, State]:
    """Stack what is trained, and what is not (buffers, frozen parameters), by name."""
    trained: State = {}
    rest: State = {}
    buffers = [dict(module.named_buffers()) for module in modules]
    parameters = [dict(module.named_parameters()) for module in modules]
    for name, value in parameters[0].items():
        stacked = torch.stack([one[name].detach() for one in parameters]).to(device)
        (trained if value.requires_grad else rest)[name] = stacked
    for name in buffers[0]:
        rest[name] = torch.stack([one[name] for one in buffers]).to(device)
    return trained, rest


def _names_of(module: nn.Module, layers: Sequence[KeyedDropout]) -> list[str]:
    """Return the names of the dropout layers' key buffers, in the layers' order."""
    names = {id(part): name for name, part in module.named_modules()}
    return [f"{names[id(layer)]}.key".removeprefix(".") for layer in layers]


def _pick(state: State, where: Tensor | None) -> State:
    return state if where is None else {name: value[where] for name, value in state.items()}


def _at(state: State, place: int) -> State:
    return {name: value[place] for name, value in state.items()}


def _put(state: State, where: Tensor | None, changed: State) -> None:
    for name, value in changed.items():
        if where is None:
            state[name] = value
        else:
            state[name][where] = value
