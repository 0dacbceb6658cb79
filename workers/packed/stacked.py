"""Train any module in lockstep: parameters, buffers and optimizer state stacked along a model axis, one `torch.func` call a step.

No batch is ever padded. Models advance independently: at each turn the largest group of models whose next batches have the
same size takes a step together, so unequal subsets, statistics over the batch and last batches are those of training alone.

The step can be compiled (torch.compile), for one number of models and a few sizes of a batch. A smaller group is then filled up
with copies whose results are dropped, batches of other sizes are taken model by model, and so are outputs: whatever a model's
neighbours, the same operations make it, to the last bit.
"""

from __future__ import annotations

import logging
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

from workers.packed.optimizers import StackedOptimizer
from workers.randomness.augmentation import apply, draw
from workers.randomness.streams import Streams, build_module
from workers.runs import Checkpoint, Queries, Run
from workers.task import DifferentiableTask
from workers.training import precision
from workers.training.batches import Batches
from workers.training.precision import DTYPES, forward, normalize_in_full
from workers.training.present_norm import exchange_norms

State = dict[str, Tensor]


@dataclass
class _Member:
    """One model of a lockstep: its run, its streams and how far it is."""

    run: Run
    streams: Streams
    batches: Batches
    rates: NDArray[np.float64]
    keys: NDArray[np.int32]
    """(steps, dropouts)."""
    epoch: int = 0
    step: int = 0
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """What is left of the present epoch's order."""
    weights: Tensor | None = None
    """The weights of the examples in it."""
    checkpoints: list[Checkpoint] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.step == len(self.rates)

    def next_epoch(self) -> None:
        """Draw the order of the next epoch if the present one is used up."""
        if len(self.order) == 0 and not self.done:
            orders, weights = self.batches.orders(1)
            self.order = torch.from_numpy(orders[0])
            self.weights = None if weights is None else torch.from_numpy(weights[0])

    def take(self, size: int) -> tuple[Tensor, Tensor | None]:
        """Return the next batch of the order and its weights, and advance."""
        batch, self.order = self.order[:size], self.order[size:]
        weights = None
        if self.weights is not None:
            weights, self.weights = self.weights[:size], self.weights[size:]
        self.step += 1
        self.epoch += len(self.order) == 0
        return batch, weights


class Stacked:
    """Trains and measures runs of one task in lockstep on one device."""

    def __init__(self, task: DifferentiableTask, device: torch.device | str = "cpu", compiled: int = 0):
        """With `compiled` the step of so many models is compiled when it is first taken: seconds, for each batch size."""
        self.task, self.recipe, self.device, self.compiled = task, task.recipe, torch.device(device), compiled
        self.dtype = DTYPES[task.recipe.precision]
        self.inputs = precision.cast(task.train_inputs, self.dtype, device)
        self.targets = precision.cast(task.train_targets, self.dtype, device)
        self.slopes = {weighted: self._slopes(weighted) for weighted in (False, True)}

    @cached_property
    def template(self) -> nn.Module:
        """The module that is called with every model's parameters."""
        return self._built[0]

    @cached_property
    def dropouts(self) -> list[str]:
        """Names of its dropout layers' key buffers."""
        return self._built[1]

    @cached_property
    def norms(self) -> list[str]:
        """Names of its batch normalizations' buffers of present examples."""
        return self._built[2]

    @cached_property
    def _built(self) -> tuple[nn.Module, list[str], list[str]]:
        module, dropouts = build_module(self.task.module, 0, self.dtype)
        norms = exchange_norms(module)
        normalize_in_full(self.recipe, module.to(self.device))
        return module, _names_of(module, dropouts, "key"), _names_of(module, norms, "present")

    def _loss(self, parameters: State, buffers: State, x: Tensor, y: Tensor, w: Tensor | None) -> tuple[Tensor, State]:
        """Mean loss of one model on its batch, and its buffers afterwards (a normalization updates them in place)."""
        fresh = {name: value.clone() for name, value in buffers.items()}
        call = partial(functional_call, self.template, (parameters, fresh))
        losses = self.task.loss(forward(self.recipe, self.device, call, x), y)
        return (losses if w is None else losses * w).mean(), fresh

    def _slopes(self, weighted: bool) -> Any:
        """Return the gradients of the models' losses, as a function of what `_loss` takes, a row a model."""
        places = (0, 0, 0, 0, 0 if weighted else None)
        return vmap(grad(self._loss, has_aux=True), in_dims=places, randomness="error")

    def compiles(self, size: int) -> bool:
        """Whether the step on batches of this size is compiled: whole batches, and the last of the subsets that designs have."""
        n, batch = self.task.n, self.recipe.batch_size
        return bool(self.compiled) and size in {batch, *(m % batch for m in (n // 2, n - 1, n))}

    def narrow(self) -> None:
        """From now on compile for half as many models: groups are filled up to that, however small their packs."""
        self.compiled = max(self.compiled // 2, min(self.compiled, 1))

    @cached_property
    def compiled_slopes(self) -> dict[bool, Any]:
        """`slopes`, compiled for the shapes it is called with."""
        # The limit counts all trainers of a process, and beyond it a step would be taken uncompiled, with other bits.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        torch._inductor.config.compile_threads = 1  # a worker has its cores, and starts no processes beside itself
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where there is no GPU
        return {weighted: torch.compile(slopes, dynamic=False) for weighted, slopes in self.slopes.items()}

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
        self.optimizer = StackedOptimizer(self.recipe, self.parameters)
        self.members = [self._member(run, stream) for run, stream in zip(runs, streams, strict=True)]

    def _member(self, run: Run, streams: Streams) -> _Member:
        batches = Batches(self.trainer.task, run, streams.order)
        rates = self.recipe.learning_rates(batches.size)
        return _Member(run, streams, batches, rates, streams.dropout_keys(len(rates), len(self.dropouts)))

    def train(self) -> None:
        """Take every step of every model."""
        self.template.train()
        for place, member in enumerate(self.members):
            self._keep(place, member)
        while group := self._largest_group():
            self._step(group)

    def _largest_group(self) -> list[int]:
        """Return the places of the models, as many as possible, whose next batches are alike; empty when all are done."""
        groups: dict[tuple[int, bool, bool], list[int]] = {}
        for place, member in enumerate(self.members):
            member.next_epoch()
            if not member.done:
                size = min(self.recipe.batch_size, len(member.order))
                form = size, member.batches.weighted, member.batches.shared
                groups.setdefault(form, []).append(place)
        return max(groups.values(), key=len, default=[])

    def _step(self, group: list[int]) -> None:
        members = [self.members[place] for place in group]
        size = min(self.recipe.batch_size, len(members[0].order))
        compiled = self.trainer.compiles(size)
        if self.trainer.compiled and not compiled and len(group) > 1:
            for place in group:
                self._step([place])
            return
        steps = [member.step for member in members]
        rates = torch.tensor([member.rates[step] for member, step in zip(members, steps, strict=True)])
        where = None if len(group) == len(self.members) else torch.tensor(group, device=self.trainer.device)
        self._set_dropout(members, where)
        batches, w = self._take(members)
        parameters, buffers = _pick(self.parameters, where), _pick(self.buffers, where)
        x, y = self.trainer.inputs[batches], self.trainer.targets[batches]
        if self.recipe.crop or self.recipe.flip:
            x = self._augment(x, members)
        if w is not None and members[0].batches.shared:
            buffers = buffers | dict.fromkeys(self.trainer.norms, w != 0)
        take = self._slopes_compiled if compiled else self.trainer.slopes[w is not None]
        gradients, changed = take(parameters, buffers, x, y, w)
        self.optimizer.step(gradients, where, rates.to(self.trainer.device, self.trainer.dtype), steps)
        _put(self.buffers, where, {name: changed[name] for name in self.buffers})
        for place, member in zip(group, members, strict=True):
            if len(member.order) == 0:
                self._keep(place, member)

    def _take(self, members: Sequence[_Member]) -> tuple[Tensor, Tensor | None]:
        """Return the members' next batches (g, b), and their weights (g, b) unless all are 1."""
        batches, weights = zip(*(member.take(self.recipe.batch_size) for member in members), strict=True)
        given = None if weights[0] is None else torch.stack(weights).to(self.trainer.device, self.trainer.dtype)
        return torch.stack(batches).to(self.trainer.device), given

    def _slopes_compiled(
        self, parameters: State, buffers: State, x: Tensor, y: Tensor, w: Tensor | None
    ) -> tuple[State, State]:
        """Return what `slopes` does, from a group filled up to the compiled number of models."""
        models, missing = len(x), self.trainer.compiled - len(x)

        def fill(value: Tensor) -> Tensor:
            return torch.cat([value, value[-1:].expand(missing, *value.shape[1:])]) if missing else value

        states = [{name: fill(value) for name, value in state.items()} for state in (parameters, buffers)]
        found = self.trainer.compiled_slopes[w is not None](*states, fill(x), fill(y), None if w is None else fill(w))
        gradients, changed = ({name: value[:models] for name, value in state.items()} for state in found)
        return gradients, changed

    def _set_dropout(self, members: Sequence[_Member], where: Tensor | None) -> None:
        """Write the keys of the members' next step where the dropout layers look for them."""
        for layer, name in enumerate(self.dropouts):
            keys = np.array([member.keys[member.step, layer] for member in members])
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


def _names_of(module: nn.Module, layers: Sequence[nn.Module], buffer: str) -> list[str]:
    """Return the names of one buffer of some layers of the module, in the layers' order."""
    names = {id(part): name for name, part in module.named_modules()}
    return [f"{names[id(layer)]}.{buffer}".removeprefix(".") for layer in layers]


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
