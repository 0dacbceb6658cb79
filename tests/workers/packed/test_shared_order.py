"""Batches that stay put: every way of training against a loop in plain PyTorch, in float64, and bits within packs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from workers import Queries, Recipe, Run
from workers.packs import train_pack
from workers.randomness.augmentation import augment
from workers.randomness.streams import Streams, build_module

RECIPES = {
    "nesterov": {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 1e-2, "schedule": "cosine"},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1, "label_smoothing": 0.2},
    "drop_last": {"lr": 0.05, "momentum": 0.9, "schedule": "linear", "drop_last": True},
}
WAYS = [
    *(("resident", architecture) for architecture in ("relu", "deep")),
    *(("stacked", one) for one in ("dropout", "layer_norm", "tokens", "convolution", "batch_norm", "residual")),
]
BATCH, EPOCHS = 5, 3


def recipe_of(name, **more):
    return Recipe(**RECIPES[name], batch_size=BATCH, epochs=EPOCHS, precision="float64", **more)


def runs_of(n, normalize):
    """Leave-one-out, a half, one of three examples (whole batches have none of them), and one with factors of its own."""
    rng = np.random.default_rng(2)
    half = np.sort(rng.permutation(n)[: n // 2])
    few = np.array([1, 2, n - 1])
    factors = rng.random(n // 2) * 2
    factors[0] = 0
    chosen = [(np.delete(np.arange(n), 4), None), (half, None), (few, None), (half, factors)]
    return [
        Run(row, subset, 60 + row, tuple(range(EPOCHS + 1)), "shared", normalize, weights)
        for row, (subset, weights) in enumerate(chosen)
    ]


def optimizer_of(recipe, parameters):
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, recipe.lr, recipe.momentum, 0, recipe.weight_decay, recipe.nesterov)
    return torch.optim.AdamW(parameters, recipe.lr, recipe.betas, recipe.eps, recipe.weight_decay)


class TakesOne(nn.BatchNorm1d):
    """torch's refuses a batch of one: its variance is 0, and no estimate of another."""

    def forward(self, x):
        if len(x) > 1:
            return super().forward(x)
        self.num_batches_tracked += 1
        self.running_mean += self.momentum * (x[0].detach() - self.running_mean)
        return 0 * x * self.weight + self.bias


def train_plainly(task, run):
    """Return the state after every epoch; modules that normalize over the batch see only who is there."""
    recipe, streams = task.recipe, Streams(run.seed)
    module, dropouts = build_module(task.module, streams.initial, torch.float64)
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.__class__ = TakesOne if isinstance(norm, nn.BatchNorm1d) else type(norm)
    optimizer = optimizer_of(recipe, module.train().parameters())
    weight = torch.zeros(task.n, dtype=torch.float64)
    weight[run.subset] = 1 if run.weights is None else torch.from_numpy(run.weights)
    if task.train_weights is not None:
        weight *= task.train_weights
    rates = recipe.learning_rates(task.n)
    keys = torch.from_numpy(streams.dropout_keys(len(rates), len(dropouts)))
    states, step = [], 0
    for _ in range(recipe.epochs):
        order = torch.from_numpy(streams.order.orders(np.arange(task.n), 1)[0])
        order = order[: task.n // recipe.batch_size * recipe.batch_size] if recipe.drop_last else order
        for batch in torch.split(order, recipe.batch_size):
            x = task.train_inputs[batch]
            if recipe.crop or recipe.flip:
                x = augment(x, recipe.crop, recipe.flip, streams.augmentation)
            for layer, key in zip(dropouts, keys[step], strict=True):
                layer.key = key
            w = weight[batch]
            divisor = len(batch) if run.normalize == "batch" else float(w.sum()) or 1.0
            there = w != 0 if norms else w >= 0
            optimizer.zero_grad(set_to_none=False)
            if there.any():
                losses = task.loss(module(x[there]), task.train_targets[batch][there])
                (sum(one * loss for one, loss in zip(w[there], losses, strict=True)) / divisor).backward()
            else:
                for parameter in module.parameters():
                    parameter.grad = torch.zeros_like(parameter)
            optimizer.param_groups[0]["lr"] = rates[step]
            optimizer.step()
            step += 1
        states.append({name: value.clone() for name, value in module.state_dict().items()})
    return states


@pytest.mark.parametrize("normalize", ["batch", "weight"])
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("path", "architecture"), WAYS)
def test_every_way_agrees_with_a_plain_loop(zoo, path, architecture, name, normalize):
    augmented = {"crop": 1, "flip": True} if architecture == "convolution" else {}
    task = zoo(recipe_of(name, **augmented), architecture, weighted=name == "adamw")
    runs = runs_of(task.n, normalize)
    packed = train_pack(task, runs, ["margin"], Queries(), method=path, width=len(runs))
    alone = train_pack(task, runs, ["margin"], Queries(), method="alone")
    for run, *outcomes in zip(runs, packed, alone, strict=True):
        expected = train_plainly(task, run)
        for outcome in outcomes:
            assert outcome.failure is None, outcome.failure.traceback
            moments = [(one.epoch, one.step) for one in outcome.checkpoints]
            steps = 6 if task.recipe.drop_last else 7
            assert moments == [(epoch, steps * epoch) for epoch in range(EPOCHS + 1)]
            for kept, state in zip(outcome.checkpoints[1:], expected, strict=True):
                for key, value in state.items():
                    assert (kept.state[key] - value).abs().max() < 1e-9, (outcome.row, key)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", ["batch", "weight"])
def test_compiled_agrees_with_alone(zoo, compare, normalize):
    task = zoo(recipe_of("adamw"), "layer_norm", weighted=True)
    compare(task, "compiled", runs_of(task.n, normalize), "margin")


@pytest.mark.parametrize(("path", "architecture"), [("resident", "deep"), ("stacked", "gelu"), ("stacked", "tokens")])
def test_beside_runs_of_their_own_order_no_bit_changes(zoo, unequal_runs, path, architecture):
    """Runs of both orders in one pack, whose batches have the same sizes: each is as it is in a pack of its own."""
    task = zoo(Recipe(lr=0.05, momentum=0.9, batch_size=BATCH, epochs=EPOCHS), architecture)
    shared, own = runs_of(task.n, "weight"), [replace(run, row=90 + run.row) for run in unequal_runs(())]
    mixed = [run for pair in zip(shared, own, strict=True) for run in pair]
    found = margins(task, mixed, path)
    for expected in (margins(task, shared, path), margins(task, own, path), margins(task, shared[:1], path)):
        for row, values in expected.items():
            np.testing.assert_array_equal(found[row], values)


def margins(task, runs, path):
    outcomes = train_pack(task, runs, ["margin"], Queries(), method=path, width=len(runs))
    assert [outcome.failure for outcome in outcomes] == [None] * len(runs)
    return {outcome.row: outcome.outputs["margin"] for outcome in outcomes}


LEFT_OUT = [
    ("alone", "deep"),
    ("resident", "deep"),
    ("stacked", "dropout"),
    ("alone", "residual"),
    ("stacked", "batch_norm"),
]


@pytest.mark.parametrize(("path", "architecture"), LEFT_OUT)
def test_a_left_out_example_changes_no_bit_whatever_it_is(zoo, path, architecture):
    outputs = []
    for content in (0.0, 1e30, torch.inf):
        task = zoo(Recipe(batch_size=BATCH, epochs=EPOCHS), architecture)
        runs = runs_of(task.n, "batch")[:1]
        task.train_inputs[4] = content
        task.train_targets[4] = int(content > 0)
        outputs.append(margins(task, runs, path)[0])
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


@pytest.mark.parametrize("more", [{"order": "shared"}, {"weights": np.ones(2)}])
def test_a_task_that_trains_itself_refuses_it(mean_task, more):
    (outcome,) = train_pack(mean_task, [Run(0, np.array([0, 2]), 5, **more)], ["value"], Queries())
    assert outcome.failure.kind == "TaskError"
    assert "MeanTask trains itself: shared order and weights" in outcome.failure.message
