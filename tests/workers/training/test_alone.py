"""The plain trainer against a hand-written NumPy loop in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from workers import Queries, Recipe
from workers.randomness.streams import Streams
from workers.training.alone import measure, train


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


class Sgd:
    """SGD with weight decay in the gradient, heavy-ball or Nesterov momentum, whose first velocity is the gradient."""

    def __init__(self, recipe):
        self.recipe, self.velocity = recipe, None

    def step(self, w, gradient, rate):
        r = self.recipe
        gradient = gradient + r.weight_decay * w
        if r.momentum:
            self.velocity = gradient if self.velocity is None else r.momentum * self.velocity + gradient
            gradient = gradient + r.momentum * self.velocity if r.nesterov else self.velocity
        return w - rate * gradient


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1); decay in the gradient, or decoupled (Loshchilov & Hutter 2019)."""

    def __init__(self, recipe):
        self.recipe, self.m, self.v, self.k = recipe, 0.0, 0.0, 0

    def step(self, w, gradient, rate):
        r = self.recipe
        if r.optimizer == "adamw":
            w = w * (1 - rate * r.weight_decay)
        else:
            gradient = gradient + r.weight_decay * w
        (b1, b2), self.k = r.betas, self.k + 1
        self.m = b1 * self.m + (1 - b1) * gradient
        self.v = b2 * self.v + (1 - b2) * gradient**2
        m, v = self.m / (1 - b1**self.k), self.v / (1 - b2**self.k)
        return w - rate * m / (np.sqrt(v) + r.eps)


def train_in_numpy(task, run, w, rates):
    """Return the final parameters (classes, features + 1), the bias last."""
    recipe = task.recipe
    x = np.c_[task.train_inputs.double().numpy(), np.ones(task.n)]
    onehot = np.eye(3)[task.train_targets.numpy()] * (1 - recipe.label_smoothing) + recipe.label_smoothing / 3
    weights = np.ones(task.n) if task.train_weights is None else task.train_weights.double().numpy()
    rule = (Sgd if recipe.optimizer == "sgd" else Adam)(recipe)
    order, step = Streams(run.seed).order, 0
    for _ in range(recipe.epochs):
        shuffled = order.orders(run.subset, 1)[0]
        for start in range(0, len(shuffled), recipe.batch_size):
            batch = shuffled[start : start + recipe.batch_size]
            error = (softmax(x[batch] @ w.T) - onehot[batch]) * weights[batch, None]
            w = rule.step(w, error.T @ x[batch] / len(batch), rates[step])
            step += 1
    return w


def parameters(state):
    return np.c_[state["weight"].double().numpy(), state["bias"].double().numpy()]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "schedule": "cosine"},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "schedule": "one_cycle", "label_smoothing": 0.1},
        {"lr": 0.1, "momentum": 0.5, "schedule": "step", "step_epochs": 2, "step_factor": 0.3},
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.02},
        {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.02, "betas": (0.8, 0.95), "schedule": "cosine"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_logistic_regression_agrees_with_numpy(blobs, run, options, weighted):
    task = blobs(Recipe(batch_size=8, epochs=5, precision="float64", **options))
    if weighted:
        task.train_weights = torch.linspace(0.1, 2.0, task.n)
    _, (first, last) = train(task, replace(run, checkpoint_epochs=(0, 5)))
    expected = train_in_numpy(task, run, parameters(first.state), task.recipe.learning_rates(len(run.subset)))
    np.testing.assert_allclose(parameters(last.state), expected, rtol=1e-10, atol=1e-12)
    assert np.abs(parameters(first.state) - expected).max() > 0.01


def test_an_example_outside_the_subset_has_no_effect(blobs, run):
    task, other = (blobs(Recipe(epochs=2)) for _ in range(2))
    outside = np.setdiff1d(np.arange(task.n), run.subset)
    other.train_inputs = other.train_inputs.clone()
    other.train_inputs[outside] = torch.nan
    a, b = (train(each, run)[0].state_dict() for each in (task, other))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_checkpoints_name_their_epoch_step_and_rate(blobs, run):
    task = blobs(Recipe(epochs=4, batch_size=8, schedule="cosine"))
    module, kept = train(task, replace(run, checkpoint_epochs=(0, 2, 4)))
    rates = task.recipe.learning_rates(len(run.subset))
    assert [(c.epoch, c.step) for c in kept] == [(0, 0), (2, 6), (4, 12)]
    assert [c.learning_rate for c in kept] == [rates[0], rates[5], rates[11]]
    assert all(torch.equal(kept[-1].state[name], value) for name, value in module.state_dict().items())
    assert not torch.equal(kept[0].state["weight"], kept[1].state["weight"])


@pytest.mark.parametrize("source", ["task", "train"])
def test_measure_returns_the_chosen_queries_in_order(blobs, run, source):
    task = blobs(Recipe(epochs=1))
    module, _ = train(task, run)
    everything = measure(task, module, ["loss", "correct"], Queries(source), batch=4)
    inputs, targets = (
        (task.query_inputs, task.query_targets) if source == "task" else (task.train_inputs, task.train_targets)
    )
    with torch.no_grad():
        expected = F.cross_entropy(module(inputs), targets, reduction="none").numpy()
    np.testing.assert_allclose(everything["loss"], expected, rtol=1e-6)
    assert everything["loss"].dtype == np.float32
    some = measure(task, module, ["loss"], Queries(source, (5, 2)))
    np.testing.assert_allclose(some["loss"], everything["loss"][[5, 2]], rtol=1e-6)


def test_torch_global_random_state_is_left_alone(blobs, run):
    before = torch.get_rng_state()
    train(blobs(Recipe(epochs=2), hidden=4, dropout=0.5), run)
    assert torch.equal(before, torch.get_rng_state())
