"""Train one differentiable model on one subset, the plain way: the reference that packed training must agree with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from workers.randomness.augmentation import augment
from workers.randomness.streams import Streams, build_module
from workers.recipe import Recipe
from workers.runs import Checkpoint, Queries, Run
from workers.task import Classification, DifferentiableTask
from workers.training.batches import Batches
from workers.training.layouts import pool_before_relu, to_channels_last
from workers.training.precision import DTYPES, cast, forward, normalize_in_full
from workers.training.present_norm import exchange_norms


def make_optimizer(recipe: Recipe, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Return PyTorch's optimizer for the recipe, fused where that is faster: one call costs as much as SGD on two."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            recipe.lr,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
            fused=len(parameters) > 2,
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, recipe.lr, recipe.betas, recipe.eps, recipe.weight_decay, fused=True)


def train(
    task: DifferentiableTask, run: Run, device: torch.device | str = "cpu", channels_last: bool = False
) -> tuple[nn.Module, tuple[Checkpoint, ...]]:
    """Train on `run.subset` with `run.seed`; return the module in eval mode, and the checkpoints asked for.

    `channels_last` lays images and convolutions out with channels last: faster or slower, and the same but for rounding.
    """
    recipe = task.recipe
    dtype = DTYPES[recipe.precision]
    streams = Streams(run.seed)
    module, dropouts = build_module(task.module, streams.initial, dtype)
    module.to(device).train()
    normalize_in_full(recipe, module)
    inputs, targets = cast(task.train_inputs, dtype, device), cast(task.train_targets, dtype, device)
    batches = Batches(task, run, streams.order)
    norms = exchange_norms(module) if batches.shared else []
    if channels_last:
        inputs = to_channels_last(pool_before_relu(module), inputs)
    optimizer = make_optimizer(recipe, list(module.parameters()))
    (group,) = optimizer.param_groups
    rates = recipe.learning_rates(batches.size).tolist()
    numbers = streams.dropout_keys(len(rates), len(dropouts))
    keys = torch.from_numpy(numbers).to(device)
    kept: list[Checkpoint] = []

    def keep(epoch: int, step: int) -> None:
        if epoch in run.checkpoint_epochs:
            state = {
                name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, value in module.state_dict().items()
            }
            kept.append(Checkpoint(epoch, step, rates[max(step - 1, 0)], state))

    keep(0, 0)
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        for batch, weights in batches.epoch(dtype, device):
            x, y = inputs[batch], targets[batch]
            if recipe.crop or recipe.flip:
                x = augment(x, recipe.crop, recipe.flip, streams.augmentation)
            for place, layer in enumerate(dropouts):
                layer.key, layer.number = keys[step, place], int(numbers[step, place])
            for norm in norms:
                norm.present = batches.present(weights)
            loss = _mean_loss(task, forward(recipe, device, module, x), y, weights)
            loss.backward()  # type: ignore[no-untyped-call]
            if group["lr"] != rates[step]:
                group["lr"] = rates[step]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
        keep(epoch, step)
    return module.eval(), tuple(kept)


def _mean_loss(task: DifferentiableTask, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
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
    dtype = DTYPES[task.recipe.precision]
    inputs, targets = task.examples(queries)
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for x, y in zip(torch.split(inputs, batch), torch.split(targets, batch), strict=True):
        outputs, y = module(cast(x, dtype, device)), cast(y, dtype, device)
        for name in names:
            parts[name].append(task.measurement(name)(outputs, y))
    return {name: torch.cat(values).float().cpu().numpy() for name, values in parts.items()}
