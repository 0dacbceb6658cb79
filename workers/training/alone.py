"""Train one differentiable model on one subset, the plain way: the reference that packed training must agree with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from workers.data.examples import Arrays, Batch, Readable
from workers.data.nested import Nested
from workers.errors import TaskError
from workers.randomness.augmentation import augment
from workers.randomness.functional_dropout import KeyedCalls
from workers.randomness.streams import Streams, build_module
from workers.runs import Checkpoint, Queries, Run
from workers.task import Classification, DifferentiableTask
from workers.training.batches import Batches
from workers.training.descent import Descent
from workers.training.last_batch import named_remedy
from workers.training.layouts import pool_before_relu, to_channels_last
from workers.training.precision import DTYPES, forward, normalize_in_full
from workers.training.present_norm import PresentBatchNorm, exchange_norms
from workers.training.statistics import recompute
from workers.training.watching import Moment, Watcher, show


def train(
    task: DifferentiableTask,
    run: Run,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    watcher: Watcher | None = None,
) -> tuple[nn.Module, tuple[Checkpoint, ...]]:
    """Train on `run.subset` with `run.seed`; return the module in eval mode, and the checkpoints asked for.

    With the recipe's `ema` the module, and the checkpoint of the last epoch, have the average of the parameters; checkpoints
    before it have the parameters themselves, for they are where the training was.

    `channels_last` lays images and convolutions out with channels last: faster or slower, and the same but for rounding.
    `watcher` is shown the training after every step that it wants to see.
    """
    recipe, dtype, streams = task.recipe, DTYPES[task.recipe.precision], Streams(run.seed)
    module, dropouts = build_module(task.module, streams.initial, dtype)
    module.to(device).train()
    normalize_in_full(recipe, module)
    examples = task.examples("train").to(dtype, device)
    batches = Batches(task, run, streams.order)
    norms = exchange_norms(module) if batches.shared else []
    examples = _channels_last(module, examples) if channels_last else examples
    descent, rates = Descent(recipe, module), recipe.learning_rates(batches.size).tolist()
    keys = torch.from_numpy(numbers := streams.dropout_keys(batches.count, len(dropouts))).to(device)
    draws = Draws(streams, batches.count, device)
    kept: list[Checkpoint] = []

    def keep(epoch: int, step: int) -> None:
        if epoch in run.checkpoint_epochs:
            kept.append(Checkpoint(epoch, step, rates[max(step - 1, 0)], _state_of(module)))

    keep(0, 0)
    step, seen, per_epoch = 0, 0, recipe.steps_per_epoch(batches.size)
    for epoch in range(1, recipe.epochs + 1):
        for portion in batches.epoch():
            batch, weights = portion.examples.to(device), portion.weights
            weights = None if weights is None else weights.to(device, dtype)
            x, y = examples.read(batch)
            if recipe.crop or recipe.flip:
                x = augment(x, recipe.crop, recipe.flip, streams.augmentation)
            for place, layer in enumerate(dropouts):
                layer.key, layer.number = keys[seen, place], int(numbers[seen, place])
            _mark_present(norms, batches, weights)
            with named_remedy(recipe, len(batch)), draws.of(seen):
                outputs = forward(recipe, device, partial(task.call, module), x)
            loss = _mean_loss(task, outputs, y, weights)
            (loss if portion.share == 1 else loss * portion.share).backward()  # type: ignore[no-untyped-call]
            seen += 1
            if portion.ends_step:
                descent.step(rates[step])
                step += 1
                show(watcher, Moment(step // per_epoch, step, rates[step - 1], module, descent.optimizer), per_epoch)
        if epoch == recipe.epochs:
            descent.finish()
            if recipe.batch_norm == "recomputed":
                recompute(task, module, examples, _all_present(norms, batches))
        keep(epoch, step)
    draws.check()
    return module.eval(), tuple(kept)


def _mark_present(norms: Sequence[PresentBatchNorm], batches: Batches, weights: Tensor | None) -> None:
    """Tell the normalizations which examples of the batch count."""
    for norm in norms:
        norm.present = batches.present(weights)


def _all_present(norms: Sequence[PresentBatchNorm], batches: Batches) -> NDArray[np.int64]:
    """Let every example of the batches to come count in the statistics; return which are trained on."""
    for norm in norms:
        norm.present = torch.ones((), dtype=torch.bool)
    return batches.trained_on


def _state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all that a module holds, as it is at this moment, contiguous and on the CPU."""
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in module.state_dict().items()
    }


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


@torch.no_grad()
def measure(
    task: DifferentiableTask,
    module: nn.Module,
    names: Sequence[str],
    queries: Queries,
    device: torch.device | str = "cpu",
    batch: int = 4096,
) -> Mapping[str, NDArray[np.float32]]:
    """Return the outputs of a trained module in eval mode: for every measure named, (t,) float32."""
    examples = task.examples(queries.source).to(DTYPES[task.recipe.precision], device)
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for indices in torch.split(torch.from_numpy(queries.take(len(examples))), batch):
        x, y = examples.read(indices)
        outputs = task.call(module, x)
        for name in names:
            parts[name].append(task.measurement(name)(outputs, y))
    return {name: torch.cat(values).float().cpu().numpy() for name, values in parts.items()}
