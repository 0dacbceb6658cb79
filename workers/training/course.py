"""One run on its way: what its steps are made of, taken one after the other, from the start or from where it once was."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workers.data.examples import Arrays, Batch, Readable
from workers.data.nested import Nested
from workers.errors import TaskError
from workers.randomness.augmentation import apply, draw
from workers.randomness.functional_dropout import KeyedCalls
from workers.randomness.streams import Streams, build_module
from workers.runs import Checkpoint, Run
from workers.task import Classification, DifferentiableTask
from workers.training.batches import Batches, Portion
from workers.training.descent import Descent
from workers.training.last_batch import named_remedy
from workers.training.layouts import pool_before_relu, to_channels_last
from workers.training.precision import DTYPES, forward, normalize_in_full
from workers.training.present_norm import PresentBatchNorm, exchange_norms
from workers.training.statistics import recompute


class Feed(NamedTuple):
    """One batch of a training, and all that is drawn for it."""

    portion: Portion
    number: int
    """Batches before it, in the whole training."""
    offsets: Tensor | None
    """Of random crops (b, 2)."""
    flips: Tensor | None
    """Which images are flipped (b,)."""


class Moment(NamedTuple):
    """Where a training is between two steps: all that the next step depends on beside recipe and seed."""

    step: int
    """Optimizer steps taken."""
    state: dict[str, Tensor]
    """Parameters and buffers by name."""
    optimizer: dict[str, Tensor]
    """As `Checkpoint.optimizer`."""


class Course:
    """The training of one run: `module`, its `descent`, and the batches that are next."""

    def __init__(
        self, task: DifferentiableTask, run: Run, device: torch.device | str = "cpu", channels_last: bool = False
    ):
        self.task, self.run, self.device = task, run, device
        self.recipe = task.recipe
        self.dtype = DTYPES[task.recipe.precision]
        streams = Streams(run.seed)
        self.module, self.dropouts = build_module(task.module, streams.initial, self.dtype)
        self.module.to(device).train()
        normalize_in_full(self.recipe, self.module)
        self.examples = task.examples("train").to(self.dtype, device)
        self._begin(streams)
        self.norms: list[PresentBatchNorm] = exchange_norms(self.module) if self.batches.shared else []
        self.examples = _channels_last(self.module, self.examples) if channels_last else self.examples
        self.descent = Descent(self.recipe, self.module)
        self.rates: list[float] = self.recipe.learning_rates(self.batches.size).tolist()
        self._numbers = streams.dropout_keys(self.batches.count, len(self.dropouts))
        self._keys = torch.from_numpy(self._numbers).to(device)
        self.draws = Draws(streams, self.batches.count, device)

    def _begin(self, streams: Streams) -> None:
        """Be before the first batch."""
        self.batches = Batches(self.task, self.run, streams.order)
        self._augmentation = streams.augmentation if self.recipe.crop or self.recipe.flip else None
        self._left: deque[Portion] = deque()
        self.step, self._seen = 0, 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        return self.recipe.steps_per_epoch(self.batches.size)

    def next_batch(self) -> Feed:
        """Return the batch that comes next, and go past it."""
        if not self._left:
            self._left.extend(self.batches.epoch())
        portion = self._left.popleft()
        number, self._seen = self._seen, self._seen + 1
        if self._augmentation is None:
            return Feed(portion, number, None, None)
        return Feed(
            portion, number, *draw(len(portion.examples), self.recipe.crop, self.recipe.flip, self._augmentation)
        )

    def next_step(self) -> list[Feed]:
        """Return the batches of the step that comes next, and go past them."""
        feeds = [self.next_batch()]
        while not feeds[-1].portion.ends_step:
            feeds.append(self.next_batch())
        self.step += 1
        return feeds

    def outputs(self, feed: Feed, weights: Tensor | None) -> tuple[Nested, Nested]:
        """Return what the module makes of a batch in training (b, ...), and the targets; `weights` tell who is there."""
        x, y = self.examples.read(feed.portion.examples.to(self.device))
        if self._augmentation is not None:
            x = apply(x, self.recipe.crop, feed.offsets, feed.flips)
        for place, layer in enumerate(self.dropouts):
            layer.key, layer.number = self._keys[feed.number, place], int(self._numbers[feed.number, place])
        for norm in self.norms:
            norm.present = self.batches.present(weights)
        with named_remedy(self.recipe, len(feed.portion.examples)), self.draws.of(feed.number):
            return forward(self.recipe, self.device, partial(self.task.call, self.module), x), y

    def weights(self, feed: Feed) -> Tensor | None:
        """Return the weights of a batch (b,) as its losses have them; None where all are 1."""
        given = feed.portion.weights
        return None if given is None else given.to(self.device, self.dtype)

    def loss(self, feed: Feed) -> Tensor:
        """Return what a batch brings to the loss of its step."""
        weights = self.weights(feed)
        outputs, y = self.outputs(feed, weights)
        loss = _mean_loss(self.task, outputs, y, weights)
        return loss if feed.portion.share == 1 else loss * feed.portion.share

    def advance(self) -> list[Feed]:
        """Take the next step; return its batches."""
        feeds = self.next_step()
        for feed in feeds:
            self.loss(feed).backward()  # type: ignore[no-untyped-call]
        self.descent.step(self.rates[self.step - 1])
        return feeds

    def finish(self) -> None:
        """Make of the last step's parameters what the recipe has measured: their average, statistics recomputed."""
        self.descent.finish()
        if self.recipe.batch_norm == "recomputed":
            for norm in self.norms:  # every example of the batches to come counts in the statistics
                norm.present = torch.ones((), dtype=torch.bool)
            recompute(self.task, self.module, self.examples, self.batches.trained_on)

    # Where it is, and going there

    def state(self) -> dict[str, Tensor]:
        """Return a copy of all that the module holds, as it is at this moment, contiguous and on the CPU."""
        return {name: _copied(value) for name, value in self.module.state_dict().items()}

    def moment(self) -> Moment:
        """Return a copy of where it is, on the CPU."""
        return Moment(self.step, self.state(), {k: _copied(v) for k, v in self.descent.state().items()})

    def checkpoint(self, epoch: int) -> Checkpoint:
        """Return where it is as a checkpoint, after so many epochs; with the optimizer's state where the run asks for it."""
        rate = self.rates[max(self.step - 1, 0)]
        held = {k: _copied(v) for k, v in self.descent.state().items()} if self.run.optimizer_state else None
        return Checkpoint(epoch, self.step, rate, self.state(), held)

    def move_to(self, moment: Moment) -> None:
        """Go to where it once was. What is drawn in turn (orders, augmentation) is drawn anew from the start."""
        self._begin(Streams(self.run.seed))
        epochs, steps = divmod(moment.step, self.steps_per_epoch)
        self.batches.skip(epochs)
        self._seen = epochs * self.recipe.batches_per_epoch(self.batches.size)
        if self._augmentation is not None:
            self._skip_draws(epochs)
        self.step = epochs * self.steps_per_epoch
        for _ in range(steps):
            self.next_step()
        self.module.load_state_dict(moment.state)
        self.module.train()
        self.descent.restore(moment.optimizer, moment.step)

    def _skip_draws(self, epochs: int) -> None:
        """Draw the augmentation of the first epochs, and forget it."""
        assert self._augmentation is not None
        size, most = self.batches.size, self.recipe.batch_size
        for _ in range(epochs):
            for start in range(0, size, most):
                draw(min(most, size - start), self.recipe.crop, self.recipe.flip, self._augmentation)


class Draws:
    """What a module draws in its forward passes by functions, from the run's own keys; dropout layers have keys of their own.

    A module that draws nothing so in its first batch is taken to draw nothing: watching costs time at every operation.
    """

    def __init__(self, streams: Streams, batches: int, device: torch.device | str):
        self._keys = torch.from_numpy(streams.functional_keys(batches)).to(device)
        self._before = torch.get_rng_state()
        self._watches = True

    @contextmanager
    def of(self, batch: int) -> Iterator[None]:
        """Govern the forward pass of one batch."""
        if not self._watches:
            yield
            return
        with KeyedCalls(self._keys[batch]) as calls:
            yield
        self._watches = calls.count > 0

    def check(self) -> None:
        """Raise TaskError if torch's global state was drawn from: the same seed would not give the same model."""
        if not torch.equal(self._before, torch.get_rng_state()):
            raise TaskError(
                "the module draws from torch's global random state in its forward pass, which a run's seed does not govern: "
                "use nn.Dropout or torch.nn.functional.dropout"
            )


def _copied(value: Tensor) -> Tensor:
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _channels_last(module: nn.Module, examples: Readable) -> Readable:
    """Lay out the module, in place, and images in memory with channels last; other examples stay as they are."""
    pool_before_relu(module)
    if not isinstance(examples, Arrays) or not isinstance(examples.whole.inputs, Tensor):
        return examples
    inputs = to_channels_last(module, examples.whole.inputs)
    return replace(examples, whole=Batch(inputs, examples.whole.targets))


def _mean_loss(task: DifferentiableTask, outputs: Nested, targets: Nested, weights: Tensor | None) -> Tensor:
    """Return the batch's mean loss: in one operation where it is the built-in one, since small ones cost as much as large."""
    if type(task).loss is Classification.loss and weights is None:
        return F.cross_entropy(outputs, targets, label_smoothing=task.recipe.label_smoothing)
    losses = task.loss(outputs, targets)
    return (losses if weights is None else losses * weights).mean()
