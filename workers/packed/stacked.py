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
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.utils._pytree import tree_map_only

from workers.data.nested import Nested, mapped
from workers.packed.accumulation import Accumulator
from workers.packed.averaging import StackedAverage
from workers.packed.optimizers import StackedOptimizer
from workers.packed.template import Template
from workers.randomness.augmentation import apply, draw
from workers.randomness.functional_dropout import KeyedCalls
from workers.randomness.streams import Streams, build_module
from workers.runs import Checkpoint, Queries, Run
from workers.task import DifferentiableTask
from workers.training.batchable_attention import batchable_attention
from workers.training.batches import Batches, Portion
from workers.training.last_batch import named_remedy
from workers.training.precision import DTYPES, forward
from workers.training.statistics import recompute

State = dict[str, Tensor]


@dataclass
class _Member:
    """One model of a lockstep: its run, its streams and how far it is."""

    run: Run
    streams: Streams
    batches: Batches
    rates: NDArray[np.float64]
    keys: NDArray[np.int32]
    """(batches, dropouts)."""
    functional: NDArray[np.int32]
    """(batches,) of what functions draw."""
    epoch: int = 0
    step: int = 0
    seen: int = 0
    """Batches taken."""
    left: deque[Portion] = field(default_factory=deque)
    """What is left of the present epoch."""
    checkpoints: list[Checkpoint] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.step == len(self.rates)

    def next_epoch(self) -> None:
        """Draw the order of the next epoch if the present one is used up."""
        if not self.left and not self.done:
            self.left.extend(self.batches.epoch())

    def take(self) -> Portion:
        """Return the next batch, and advance."""
        batch = self.left.popleft()
        self.seen += 1
        self.step += batch.ends_step
        self.epoch += not self.left
        return batch


class Stacked:
    """Trains and measures runs of one task in lockstep on one device."""

    def __init__(self, task: DifferentiableTask, device: torch.device | str = "cpu", compiled: int = 0):
        """With `compiled` the step of so many models is compiled when it is first taken: seconds, for each batch size."""
        self.task, self.recipe, self.device, self.compiled = task, task.recipe, torch.device(device), compiled
        self.dtype = DTYPES[task.recipe.precision]
        self.examples = task.examples("train").to(self.dtype, device)
        self.slopes = {weighted: self._slopes(weighted) for weighted in (False, True)}

    @cached_property
    def template(self) -> Template:
        """What is called with every model's parameters."""
        return Template(self.task, self.examples, self.device)

    def _loss(
        self, parameters: State, buffers: State, x: Nested, y: Nested, w: Tensor | None, key: Tensor
    ) -> tuple[Tensor, State]:
        """Mean loss of one model on its batch, and its buffers afterwards (a normalization updates them in place)."""
        fresh = {name: value.clone() for name, value in buffers.items()}
        call = partial(self.template, (parameters, fresh))
        with KeyedCalls(key) if self.template.draws else nullcontext():
            outputs = forward(self.recipe, self.device, call, x)
        losses = self.task.loss(outputs, y)
        return (losses if w is None else losses * w).mean(), fresh

    def _slopes(self, weighted: bool) -> Any:
        """Return the gradients of the models' losses, as a function of what `_loss` takes, a row a model."""
        places = (0, 0, 0, 0, 0 if weighted else None, 0)
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
        import torch._dynamo  # the compiler takes seconds to import, in every worker
        import torch._inductor.config

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
        self.template = trainer.template
        self.parameters, self.buffers = _stack(built, trainer.device, self.template.unused)
        self.optimizer = StackedOptimizer(self.recipe, self.parameters, dict(built[0].named_parameters()))
        self.accumulator = Accumulator(self.parameters) if self.recipe.accumulate > 1 else None
        self.average = StackedAverage(self.recipe.ema, self.parameters) if self.recipe.ema else None
        self.members = [self._member(run, stream) for run, stream in zip(runs, streams, strict=True)]

    def _member(self, run: Run, streams: Streams) -> _Member:
        batches = Batches(self.trainer.task, run, streams.order)
        rates = self.recipe.learning_rates(batches.size)
        keys = streams.dropout_keys(batches.count, len(self.template.dropouts))
        return _Member(run, streams, batches, rates, keys, streams.functional_keys(batches.count))

    def train(self) -> None:
        """Take every step of every model. With the recipe's `ema` its end, and the last epoch's checkpoint, are the average."""
        self.template.module.train()
        for place, member in enumerate(self.members):
            self._keep(place, member)
        while group := self._largest_group():
            self._step(group)

    def _largest_group(self) -> list[int]:
        """Return the places of the models, as many as possible, whose next batches are alike; empty when all are done.

        Alike are batches of one size and kind after which all of the models step, or none.
        """
        alike: dict[tuple[int, bool, bool, bool], list[int]] = {}
        for place, member in enumerate(self.members):
            member.next_epoch()
            if not member.done:
                following, batches = member.left[0], member.batches
                form = len(following.examples), following.ends_step, batches.weighted, batches.shared
                alike.setdefault(form, []).append(place)
        return max(alike.values(), key=len, default=[])

    def _step(self, group: list[int]) -> None:
        members = [self.members[place] for place in group]
        compiled = self.trainer.compiles(len(members[0].left[0].examples))
        if self.trainer.compiled and not compiled and len(group) > 1:
            for place in group:
                self._step([place])
            return
        steps = [member.step for member in members]
        where = None if len(group) == len(self.members) else torch.tensor(group, device=self.trainer.device)
        self._set_dropout(members, where)
        keys = torch.tensor([member.functional[member.seen] for member in members], dtype=torch.int32)
        taken = [member.take() for member in members]
        batches, w = self._together(taken)
        parameters, buffers = _pick(self.parameters, where), _pick(self.buffers, where)
        x, y = self.trainer.examples.read(batches)
        if self.recipe.crop or self.recipe.flip:
            x = self._augment(x, members)
        if w is not None and members[0].batches.shared:
            buffers = buffers | dict.fromkeys(self.template.norms, w != 0)
        take = self._slopes_compiled if compiled else self.trainer.slopes[w is not None]
        with named_remedy(self.recipe, batches.shape[1]), batchable_attention():
            gradients, changed = take(parameters, buffers, x, y, w, keys.to(self.trainer.device))
        _put(self.buffers, where, {name: changed[name] for name in self.buffers})
        if self.accumulator:
            gradients = self.accumulator.add(gradients, where, [batch.share for batch in taken])
        if taken[0].ends_step:
            self._descend(gradients, where, members, steps)
        for place, member in zip(group, members, strict=True):
            if not member.left:
                if member.done:
                    self._finish(place, member)
                self._keep(place, member)

    def _finish(self, place: int, member: _Member) -> None:
        """Put what the recipe makes of a finished model in the place of what training left."""
        if self.average:
            self.average.finish(place)
        if self.recipe.batch_norm == "recomputed":
            module, _ = build_module(self.trainer.task.module, 0, self.trainer.dtype)
            module.load_state_dict(self.state(place))
            recompute(
                self.trainer.task, module.to(self.trainer.device), self.trainer.examples, member.batches.trained_on
            )
            for name, value in module.named_buffers():
                if name in self.buffers:
                    self.buffers[name][place] = value

    def _together(self, taken: Sequence[Portion]) -> tuple[Tensor, Tensor | None]:
        """Return the batches of a group (g, b), and their weights (g, b) unless all are 1."""
        weights = [batch.weights for batch in taken if batch.weights is not None]
        given = torch.stack(weights).to(self.trainer.device, self.trainer.dtype) if weights else None
        return torch.stack([batch.examples for batch in taken]).to(self.trainer.device), given

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

    def _slopes_compiled(self, *arguments: Nested) -> tuple[State, State]:
        """Return what `slopes` does, from a group filled up to the compiled number of models."""
        models = len(arguments[-1])
        missing = self.trainer.compiled - models

        def fill(value: Tensor) -> Tensor:
            return torch.cat([value, value[-1:].expand(missing, *value.shape[1:])]) if missing else value

        weighted = arguments[4] is not None
        found = self.trainer.compiled_slopes[weighted](*(mapped(fill, one) for one in arguments))
        gradients, changed = ({name: value[:models] for name, value in state.items()} for state in found)
        return gradients, changed

    def _set_dropout(self, members: Sequence[_Member], where: Tensor | None) -> None:
        """Write the keys of the members' next step where the dropout layers look for them."""
        for layer, name in enumerate(self.template.dropouts):
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
        return {name: whole[own][place].detach().cpu().clone() for name, own in self.template.own_names.items()}

    def _keep(self, place: int, member: _Member) -> None:
        if member.epoch in member.run.checkpoint_epochs:
            rate = float(member.rates[max(member.step - 1, 0)])
            member.checkpoints.append(Checkpoint(member.epoch, member.step, rate, self.state(place)))

    @torch.no_grad()
    def measure(
        self, names: Sequence[str], queries: Queries, batch: int = 1024
    ) -> list[dict[str, NDArray[np.float32]]]:
        """Return every model's measures in evaluation mode, (t,) float32 each."""
        self.template.module.eval()
        task = self.trainer.task
        examples = task.examples(queries.source).to(self.trainer.dtype, self.trainer.device)
        parts: list[dict[str, list[Tensor]]] = [{name: [] for name in names} for _ in self.members]
        for indices in torch.split(torch.from_numpy(queries.take(len(examples))), batch):
            x, y = examples.read(indices)
            for outputs, found in zip(self._evaluate(x), parts, strict=True):
                for name, values in found.items():
                    values.append(task.measurement(name)(outputs, y))
        return [{name: torch.cat(values).float().cpu().numpy() for name, values in each.items()} for each in parts]

    def _evaluate(self, x: Nested) -> list[Nested]:
        """Return every model's outputs."""
        call, places = self.template, range(len(self.members))
        with batchable_attention():
            if self.trainer.compiled:
                return [call((_at(self.parameters, place), _at(self.buffers, place)), x) for place in places]
            together = vmap(call, in_dims=((0, 0), None))((self.parameters, self.buffers), x)
        return [tree_map_only(Tensor, itemgetter(place), together) for place in places]


def _stack(modules: Sequence[nn.Module], device: torch.device, unused: frozenset[str]) -> tuple[State, State]:
    """Stack what is trained, and what is not (buffers, frozen and unused parameters), by name."""
    trained: State = {}
    rest: State = {}
    buffers = [dict(module.named_buffers()) for module in modules]
    parameters = [dict(module.named_parameters()) for module in modules]
    for name, value in parameters[0].items():
        stacked = torch.stack([one[name].detach() for one in parameters]).to(device)
        (trained if value.requires_grad and name not in unused else rest)[name] = stacked
    for name in buffers[0]:
        rest[name] = torch.stack([one[name] for one in buffers]).to(device)
    return trained, rest


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
