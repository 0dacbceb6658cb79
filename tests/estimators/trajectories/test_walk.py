"""The derivative of a training in the weights of its examples, against trainings with other weights."""

import pytest
import torch
from torch import nn

from tests.estimators.trajectories.small_trainings import (
    Small,
    convolved,
    differences,
    dropping,
    error,
    margins,
    mlp,
    normed,
    run_of,
    walked,
)
from workers import Recipe
from workers.training.course import Course

ADAM = {"optimizer": "adam", "lr": 0.02}
ADAMW = {"optimizer": "adamw", "lr": 0.02, "weight_decay": 0.1}
CASES = {
    "sgd": (mlp, {}),
    "decay": (mlp, {"weight_decay": 0.05, "no_decay": ["*.bias"]}),
    "momentum": (mlp, {"momentum": 0.8, "weight_decay": 0.01}),
    "nesterov": (mlp, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    "adam": (mlp, ADAM | {"weight_decay": 0.01}),
    "adam_root": (mlp, ADAM | {"eps": 1e-4, "eps_in": "root"}),
    "adamw": (mlp, ADAMW | {"no_decay": ["*.bias"]}),
    "adamw_root": (mlp, ADAMW | {"eps": 1e-4, "eps_in": "root"}),
    "cosine": (mlp, {"schedule": "cosine", "warmup_steps": 2}),
    "one_cycle": (mlp, ADAM | {"schedule": "one_cycle"}),
    "clipped": (mlp, {"clip_norm": 0.3, "momentum": 0.5}),
    "clipped_adam": (mlp, ADAM | {"clip_norm": 0.3}),
    "accumulated": (mlp, {"accumulate": 2, "momentum": 0.5, "batch_size": 3}),
    "averaged": (mlp, ADAM | {"ema": 0.7}),
    "dropout": (dropping, {"momentum": 0.5}),
    "smoothed": (mlp, {"label_smoothing": 0.1, "drop_last": True}),
    "norm": (normed, {"momentum": 0.5}),
    "norm_accumulated": (normed, {"accumulate": 2}),
    "norm_averaged": (normed, {"ema": 0.6}),
    "norm_recomputed": (normed, {"batch_norm": "recomputed"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("order", ["own", "shared"])
def test_it_is_what_retraining_with_other_weights_gives(case, order):
    module, recipe = CASES[case]
    task = Small(module, **recipe)
    run = run_of(task, order=order)
    assert error(walked(task, run), differences(task, run)) < 1e-6


@pytest.mark.parametrize(
    ("options", "run"),
    [
        ({"weights": True}, {}),
        ({"weights": True}, {"order": "shared"}),
        ({"weights": True}, {"order": "shared", "normalize": "weight"}),
        ({"accumulate": 2, "batch_size": 3}, {"order": "shared", "normalize": "weight"}),
    ],
)
def test_examples_that_have_weights_already(options, run):
    task = Small(mlp, **options)
    assert error(walked(task, run_of(task, **run)), differences(task, run_of(task, **run))) < 1e-6


@pytest.mark.parametrize("order", ["own", "shared"])
def test_images_that_are_augmented(order):
    task = Small(convolved, images=True, crop=1, flip=True, momentum=0.5)
    run = run_of(task, order=order)
    assert error(walked(task, run), differences(task, run)) < 1e-6


def test_it_begins_at_checkpoints_where_they_are_whole():
    """With every epoch's state kept, no stretch is gone through twice; the answer is the same."""
    task = Small(mlp, **ADAM, ema=0.6)
    whole = walked(task, run_of(task, checkpoint_epochs=(1, 2, 3), optimizer_state=True))
    assert error(whole, walked(task, run_of(task))) < 1e-12


def test_units_that_never_had_a_gradient():
    """Adam's root has no slope at 0; an input that is always 0 gives its weights no gradient, and nothing to the others'."""
    task = Small(mlp, **ADAM)
    task.train_inputs = task.train_inputs.clone()
    task.train_inputs[:, 1] = 0
    run = run_of(task)
    found = walked(task, run)
    assert torch.isfinite(found).all()
    assert error(found, differences(task, run)) < 1e-6


class Partial(nn.Module):
    """One frozen layer, one that is not used, and one layer that stands in two places."""

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.last, self.unused = (nn.Linear(4, width) for width in (4, 4, 3, 2))
        self.first.requires_grad_(False)

    def forward(self, x):
        return self.last(torch.tanh(self.twice(torch.tanh(self.twice(self.first(x))))))


@pytest.mark.parametrize("recipe", [{"momentum": 0.5, "weight_decay": 0.1}, ADAMW])
def test_frozen_unused_and_tied_parameters(recipe):
    task = Small(Partial, **recipe)
    run = run_of(task)
    assert error(walked(task, run), differences(task, run)) < 1e-6


def test_it_is_reverse_mode_through_a_loop_written_out():
    """One graph over all steps, by automatic differentiation: momentum and decay, on the course's own batches."""
    task = Small(mlp, momentum=0.8, weight_decay=0.02)
    run = run_of(task)
    course = Course(task, run)
    module, weights = course.module, torch.ones(task.n, dtype=torch.float64, requires_grad=True)
    names = list(dict(module.named_parameters()))
    theta = [value.detach().clone().requires_grad_() for value in module.parameters()]
    velocity = [torch.zeros_like(value) for value in theta]
    examples = task.examples("train").to(torch.float64)
    for rate in course.rates:
        (feed,) = course.next_step()
        x, y = examples.read(feed.portion.examples)
        outputs = torch.func.functional_call(module, dict(zip(names, theta, strict=True)), (x,))
        loss = (task.loss(outputs, y) * weights[feed.portion.examples]).mean()
        gradients = torch.autograd.grad(loss, theta, create_graph=True)
        velocity = [0.8 * v + g + 0.02 * p for v, g, p in zip(velocity, gradients, theta, strict=True)]
        theta = [p - rate * v for p, v in zip(theta, velocity, strict=True)]
    queries = task.examples("task").to(torch.float64).read(torch.arange(task.t))
    outputs = torch.func.functional_call(module, dict(zip(names, theta, strict=True)), (queries.inputs,))
    found = task.measurement("margin")(outputs, queries.targets)
    expected = torch.stack([torch.autograd.grad(one, weights, retain_graph=True)[0] for one in found], 1)
    assert error(walked(task, run), expected) < 1e-10


def test_without_curvature_gradients_are_carried_unchanged():
    """Plain SGD, no Hessian: the measure's gradient at the end times every step's gradient, by its rate."""
    task = Small(mlp, schedule="linear")
    run = run_of(task)
    course = Course(task, run)
    expected = torch.zeros(task.n, task.t, dtype=torch.float64)
    steps = []
    for rate in course.rates:
        feeds = course.next_step()
        state = [value.detach().clone() for value in course.module.parameters()]
        steps.append((rate, feeds[0], state))
        course.loss(feeds[0]).backward()
        course.descent.step(rate)
    parameters = list(course.module.parameters())
    ends = [torch.autograd.grad(one, parameters, retain_graph=True) for one in margins(task, course.module)]
    for rate, feed, state in steps:
        with torch.no_grad():
            for value, before in zip(parameters, state, strict=True):
                value.copy_(before)
        x, y = course.examples.read(feed.portion.examples)
        for place, one in enumerate(task.loss(course.module(x), y)):
            gradient = torch.autograd.grad(one, parameters, retain_graph=True)
            for query, end in enumerate(ends):
                product = sum(float((g * e).sum()) for g, e in zip(gradient, end, strict=True))
                expected[feed.portion.examples[place], query] -= rate * product / len(y)
    assert error(walked(task, run, "none"), expected) < 1e-10


def test_gauss_newton_is_the_recursion_of_data_value_embeddings():
    """Written densely: E_s(i) = rate_s g_i / b - sum over later steps of rate_t / b sum over z in t of <g_z, E_s(i)> g_z."""
    task = Small(mlp, schedule="linear")
    run = run_of(task)
    course = Course(task, run)
    expected = torch.zeros(task.n, task.t, dtype=torch.float64)
    embeddings: list[tuple[int, torch.Tensor]] = []
    parameters = list(course.module.parameters())

    def flat(values):
        return torch.cat([value.flatten() for value in values])

    for rate in course.rates:
        (feed,) = course.next_step()
        x, y = course.examples.read(feed.portion.examples)
        losses = task.loss(course.module(x), y)
        each = torch.stack([flat(torch.autograd.grad(one, parameters, retain_graph=True)) for one in losses])
        embeddings = [(i, one - rate / len(y) * each.T @ (each @ one)) for i, one in embeddings]
        embeddings += [(int(i), rate / len(y) * one) for i, one in zip(feed.portion.examples, each, strict=True)]
        losses.mean().backward()
        course.descent.step(rate)
    ends = torch.stack(
        [flat(torch.autograd.grad(one, parameters, retain_graph=True)) for one in margins(task, course.module.eval())]
    )
    for example, one in embeddings:
        expected[example] -= ends @ one
    assert error(walked(task, run, "gauss_newton"), expected) < 1e-10


def test_the_recipe_is_followed():
    """The cases above differ: none of the options is without effect."""
    assert len({Recipe(**recipe).model_dump_json() for _, recipe in CASES.values()}) >= len(CASES) - 3
