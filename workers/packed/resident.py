"""Train chains of Linear layers on a CPU, one model in cache after the other: the Python side of `kernels`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workers.kernels import cpu
from workers.packed.initial import Initial
from workers.packed.linear_chain import Chain, Dense, find_chain
from workers.randomness.dropout import hash_positions
from workers.randomness.streams import Streams, build_module
from workers.recipe import Recipe
from workers.runs import Checkpoint, Queries, Run
from workers.task import Classification, DifferentiableTask, Regression
from workers.training.batches import Batches
from workers.training.precision import DTYPES

Array = NDArray[Any]

_TOGETHER = 16
"""Models that are begun, and measured, together: calls of small operations cost more than their arithmetic."""
_BEGUN = 1 << 23
"""Numbers that models begun together may hold."""
_ORDERS = 1 << 20
"""Examples whose order is drawn before one call of the kernel: bounds the memory that orders take."""


def find_loss(task: DifferentiableTask) -> int | None:
    """Return the kernel's code of the task's loss, or None if the task brings its own."""
    if isinstance(task, Classification) and type(task).loss is Classification.loss:
        return cpu.CROSS_ENTROPY
    if isinstance(task, Regression) and type(task).loss is Regression.loss:
        return cpu.SQUARED_ERROR
    return None


def _are_numbers(task: DifferentiableTask) -> bool:
    """Whether inputs are one floating tensor in memory and targets another, and the module is called with the inputs alone."""
    if task.train_data is not None or type(task).call is not DifferentiableTask.call:
        return False
    inputs, targets = task.train_inputs, task.train_targets
    return isinstance(inputs, torch.Tensor) and inputs.is_floating_point() and isinstance(targets, torch.Tensor)


def takes(recipe: Recipe) -> bool:
    """Whether the kernels compute the recipe: any schedule, but one update for all parameters after every batch."""
    return (
        recipe.precision != "bf16"
        and not (recipe.crop or recipe.flip)
        and recipe.clip_norm is None
        and recipe.accumulate == 1
        and not recipe.no_decay
        and recipe.ema is None
        and (recipe.optimizer == "sgd" or recipe.eps_in == "denominator")
    )


def _labels_fit(targets: torch.Tensor, classes: int) -> bool:
    """Whether every label is the index of an output."""
    return bool(((targets >= 0) & (targets < classes)).all())


class Layout:
    """Where the parameters of a chain lie in the kernels' flat, padded array."""

    def __init__(self, chain: Chain, dtype: np.dtype[Any]):
        self.chain = chain
        self.vector = max(cpu.lanes(dtype), cpu.ROWS)
        inputs = _round_up(chain.layers[0].inputs, self.vector)
        rows, size = [], 0
        for layer in chain.layers:
            last = layer is chain.layers[-1]
            outputs = _round_up(layer.outputs, cpu.ROWS if last else self.vector)
            bias = size + inputs * outputs
            code = getattr(cpu, layer.activation.upper())
            where = bias if layer.bias is not None else -1
            drop = -1 if layer.dropout is None or layer.p == 0 else layer.dropout
            rows.append([layer.inputs, layer.outputs, inputs, outputs, size, where, code, drop])
            size = bias + (outputs if layer.bias is not None else 0)
            inputs = outputs
        self.table = np.array(rows, dtype=np.int64)
        self.size = size
        self.widest = int(self.table[:, [cpu.IN_PADDED, cpu.OUT_PADDED]].max())
        self.largest = int((self.table[:, cpu.IN_PADDED] * self.table[:, cpu.OUT_PADDED]).max())

    def views(self, flat: Array) -> dict[str, Array]:
        """Return every parameter by its name, shaped as torch has it, as a view of the flat array."""
        found = {}
        for layer, row in zip(self.chain.layers, self.table, strict=True):
            inputs, outputs, padded_inputs, padded_outputs, weight, bias = (int(value) for value in row[:6])
            matrix = flat[weight : weight + padded_inputs * padded_outputs]
            if layer is self.chain.layers[-1]:  # the kernels turn the last one round
                found[layer.weight] = matrix.reshape(padded_outputs, padded_inputs)[:outputs, :inputs]
            else:
                found[layer.weight] = matrix.reshape(padded_inputs, padded_outputs)[:inputs, :outputs].T
            if layer.bias is not None:
                found[layer.bias] = flat[bias : bias + outputs]
        return found


def _zeros(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return zeros from torch's allocator, which begins at a cache line: vectors across two lines cost twice."""
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.zeros(shape, dtype=kind).numpy()


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Begun:
    """A run before its first step."""

    streams: Streams
    initial: Array
    """Its parameters, as the kernels keep them."""


class Resident:
    """Trains and measures runs of one task, one after another, in buffers that it allocates once."""

    def __init__(self, task: DifferentiableTask, chain: Chain, loss: int):
        self.task, self.recipe = task, task.recipe
        self.dtype = np.dtype(task.recipe.precision)
        self.layout = Layout(chain, self.dtype)
        self.examples = cpu.Examples(
            self._flat(task.train_inputs), task.train_targets.detach().numpy().astype(self.dtype).reshape(task.n)
        )
        self.network = cpu.Network(self.layout.table, _drops(chain))
        self.rule = cpu.Rule(
            loss, _optimizer(self.recipe), _hyper(self.recipe, self.dtype), cpu.exp_constants(self.dtype)
        )
        self.initial = Initial(task.module, DTYPES[task.recipe.precision])
        self.model, self.buffers = self._model(), self._buffers()
        self.flat, self.views = self.model.parameters, self.layout.views(self.model.parameters)
        self._queries: Queries | None = None
        self._rates: dict[int, tuple[NDArray[np.float64], Array]] = {}

    @classmethod
    def of(cls, task: DifferentiableTask) -> Resident | None:
        """Return a trainer for the task, or None if the kernels cannot train it.

        They take chains of Linear layers with a loss of ours, and write at the label's place: every label must have an output.
        """
        loss = find_loss(task)
        if loss is None or not _are_numbers(task) or not takes(task.recipe):
            return None
        module, dropouts = build_module(task.module, 0, DTYPES[task.recipe.precision])
        chain = find_chain(module, dropouts)
        if chain is None or task.train_inputs[0].numel() != chain.layers[0].inputs:
            return None
        if loss == cpu.CROSS_ENTROPY and not _labels_fit(task.train_targets, chain.layers[-1].outputs):
            return None
        return cls(task, chain, loss)

    def _flat(self, inputs: torch.Tensor) -> Array:
        """Return examples (b, padded inputs) as the kernels take them."""
        flat: Array = inputs.detach().reshape(len(inputs), -1).numpy()
        width = int(self.layout.table[0, cpu.IN_PADDED])
        if flat.shape[1] == width:
            return np.ascontiguousarray(flat, dtype=self.dtype)
        padded = _zeros((len(flat), width), self.dtype)
        padded[:, : flat.shape[1]] = flat
        return padded

    def _model(self) -> cpu.Model:
        return cpu.Model(*(_zeros(self.layout.size, self.dtype) for _ in range(3)))

    def _buffers(self) -> cpu.Buffers:
        layers, widest = len(self.layout.table), self.layout.widest
        batch = max(_round_up(self.recipe.batch_size, self.layout.vector), cpu.BATCH)
        turned = int(self.layout.table[-1, cpu.IN_PADDED]) * batch
        return cpu.Buffers(
            acts=_zeros((layers + 1, batch * widest), self.dtype),
            slopes=_zeros((layers + 1, batch * widest), self.dtype),
            deltas=_zeros((2, batch * widest), self.dtype),
            scratch=_zeros(max(self.layout.largest, turned, 2 * batch), self.dtype),
            g=_zeros(max(cpu.BLOCK, cpu.ROWS * widest), self.dtype),
            y=_zeros(batch, self.dtype),
            factors=_zeros(batch, self.dtype),
            hashed=hash_positions(batch * widest).numpy().view(np.uint32),
        )

    def rates(self, size: int) -> tuple[NDArray[np.float64], Array]:
        """Return the learning rates of a subset of this size, and the kernel's table of them."""
        if size not in self._rates:
            plain = self.recipe.learning_rates(size)
            self._rates[size] = plain, _rate_table(self.recipe, plain, self.dtype)
        return self._rates[size]

    @property
    def together(self) -> int:
        """Runs to begin before the first of them is trained: building a module drives all else from the core's cache."""
        return int(np.clip(_BEGUN // self.layout.size, 1, _TOGETHER))

    def begin(self, run: Run) -> Begun:
        """Draw the run's initial parameters."""
        streams = Streams(run.seed)
        parameters = self.initial.draw(streams.initial)
        for name, view in self.views.items():
            view[:] = parameters[name].numpy()
        return Begun(streams, self.flat.copy())

    def train(self, run: Run, begun: Begun) -> tuple[Checkpoint, ...]:
        """Train a run that was begun; its final parameters stay in `flat`. Returns the checkpoints asked for."""
        streams = begun.streams
        self.flat[:], self.model.first[:], self.model.second[:] = begun.initial, 0, 0
        batches = Batches(self.task, run, streams.order)
        plain, table = self.rates(batches.size)
        keys = streams.dropout_keys(len(plain), len(self.network.drops)).astype(np.uint32)
        per_epoch = self.recipe.steps_per_epoch(batches.size)
        kept: list[Checkpoint] = []
        done = 0
        for until in self._stops(run):
            for epochs in _split(done, until, max(1, _ORDERS // max(1, batches.size))):
                with flushing_denormals():
                    self._advance(batches, epochs, slice(done * per_epoch, None), keys, table)
                done += epochs
            if until in run.checkpoint_epochs:
                step = done * per_epoch
                kept.append(Checkpoint(done, step, float(plain[max(step - 1, 0)]), self.state()))
        return tuple(kept)

    def _stops(self, run: Run) -> list[int]:
        return sorted({0, self.recipe.epochs} | {e for e in run.checkpoint_epochs if 0 <= e <= self.recipe.epochs})

    def _advance(self, batches: Batches, epochs: int, steps: slice, keys: Array, table: Array) -> None:
        orders, weights = batches.orders(epochs)
        given = np.empty((epochs, 0), self.dtype) if weights is None else weights.astype(self.dtype)
        wanted = cpu.Epochs(orders, given, self.recipe.batch_size, keys[steps], table[steps])
        cpu.train(self.examples, wanted, self.network, self.rule, self.model, self.buffers)

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of the present parameters by name."""
        return {name: torch.from_numpy(view.copy()) for name, view in self.views.items()}

    def outputs(self, queries: Queries) -> torch.Tensor:
        """Return the present model's outputs of the chosen queries in evaluation mode, (t, outputs), or (t,) if squeezed."""
        return self.predict(self._queried(queries)[0])

    def measure(
        self, outputs: Sequence[torch.Tensor], names: Sequence[str], queries: Queries
    ) -> list[dict[str, NDArray[np.float32]]]:
        """Return the measures, (t,) float32 each, of every model whose `outputs` are given; all models in one call."""
        targets = self._queried(queries)[1]
        models, count = len(outputs), len(targets)
        together, wanted = torch.cat(list(outputs)), torch.cat([targets] * models)
        found = {name: self.task.measurement(name)(together, wanted).float().numpy() for name in names}
        return [{name: found[name][k * count : (k + 1) * count] for name in names} for k in range(models)]

    def _queried(self, queries: Queries) -> tuple[Array, torch.Tensor]:
        if queries != self._queries:
            examples = self.task.examples(queries.source).to(DTYPES[self.recipe.precision])
            asked, targets = examples.read(torch.from_numpy(queries.take(len(examples))))
            self._asked = self._flat(asked), targets
            self._queries = queries
        return self._asked

    def predict(self, inputs: Array) -> torch.Tensor:
        """Return the present model's outputs in evaluation mode, (b, outputs), or (b,) if the module squeezes them."""
        out = np.empty((len(inputs), self.layout.chain.layers[-1].outputs), self.dtype)
        cpu.predict(inputs, self.network, self.rule.constants, self.flat, self.buffers, out)
        tensor = torch.from_numpy(out)
        return tensor[:, 0] if self.layout.chain.squeezed else tensor


@contextmanager
def flushing_denormals() -> Iterator[None]:
    """Treat numbers too small for full precision as zero: a model that has learned its data has many, each takes an exception."""
    before = np.float32(1e-30) * np.float32(1e-10) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(bool(before))


def _dropping(chain: Chain) -> list[Dense]:
    """Return the layers that are followed by a dropout, in the order of the dropouts."""
    return sorted((layer for layer in chain.layers if layer.dropout is not None), key=lambda layer: layer.dropout or 0)


def _drops(chain: Chain) -> Array:
    """Return (dropouts, 2): below which 31 random bits a unit is dropped, and by how much the others are scaled."""
    rows = [(int(layer.p * 2**31), 1 / (1 - layer.p)) for layer in _dropping(chain)]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _split(start: int, stop: int, most: int) -> list[int]:
    """Split the way from `start` to `stop` into pieces of at most `most`."""
    return [min(most, stop - at) for at in range(start, stop, most)]


def _optimizer(recipe: Recipe) -> int:
    if recipe.optimizer == "sgd":
        return cpu.NESTEROV if recipe.nesterov else cpu.SGD
    return cpu.ADAM if recipe.optimizer == "adam" else cpu.ADAMW


def _hyper(recipe: Recipe, dtype: np.dtype[Any]) -> Array:
    """Return the recipe's constants in the order of the kernels' indices."""
    values = np.zeros(6, dtype)
    values[cpu.MOMENTUM], values[cpu.DECAY] = recipe.momentum, recipe.weight_decay
    values[cpu.BETA1], values[cpu.BETA2] = recipe.betas
    values[cpu.EPSILON], values[cpu.SMOOTHING] = recipe.eps, recipe.label_smoothing
    return values


def _rate_table(recipe: Recipe, plain: NDArray[np.float64], dtype: np.dtype[Any]) -> Array:
    """Return (steps, 5): rate, rate over Adam's first correction, one over the root of its second, 1 - beta1, 1 - beta2."""
    step = np.arange(1, len(plain) + 1)
    beta1, beta2 = recipe.betas
    table = np.empty((len(plain), 5))
    table[:, 0] = plain
    table[:, 1] = plain / (1 - beta1**step)
    table[:, 2] = 1 / np.sqrt(1 - beta2**step)
    table[:, 3], table[:, 4] = 1 - beta1, 1 - beta2
    with np.errstate(over="ignore"):  # a rate beyond float32 is a diverging run, not an error
        return table.astype(dtype)
