"""The estimators that are one walk backwards through a training, and TracIn at every step of it."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from estimators.evidence import Evidence, Reference
from estimators.gradient_based.data_value_embedding import DataValueEmbedding
from estimators.gradient_based.hydra import Hydra
from estimators.gradient_based.tracin import TracIn
from estimators.gradient_based.unrolled import Unrolled
from tests.estimators.trajectories.small_trainings import (
    Small,
    differences,
    error,
    margins,
    mlp,
    normed,
    run_of,
    walked,
)
from workers.errors import ConfigError, TaskError
from workers.training.alone import train
from workers.training.course import Course


def evidence_of(task, *seeds, order="own", epochs=None, measure="margin"):
    """Return the evidence of one training a seed."""
    runs = [replace(run_of(task, order=order), seed=seed) for seed in seeds]
    epochs = epochs or (task.recipe.epochs,)
    kept = [train(task, replace(run, checkpoint_epochs=epochs))[1] for run in runs]
    references = tuple(Reference(run.seed, one, order) for run, one in zip(runs, kept, strict=True))
    return Evidence(task.n, task.t, measure, references=references, task=task)


def values_of(estimator, evidence):
    return torch.from_numpy(estimator.attribute(evidence).values).double()


@pytest.mark.parametrize("order", ["own", "shared"])
def test_unrolled_is_the_mean_of_its_models(order):
    task = Small(mlp, momentum=0.5)
    runs = [replace(run_of(task, order=order), seed=seed) for seed in (5, 6)]
    expected = sum(differences(task, run) for run in runs) / 2
    assert error(values_of(Unrolled(), evidence_of(task, 5, 6, order=order)), expected) < 1e-6


def test_queries_come_in_blocks_where_memory_is_short():
    task = Small(mlp, optimizer="adam", lr=0.02)
    evidence = evidence_of(task, 5)
    few = Unrolled(memory_gb=1e-6)  # one query at a time
    assert error(values_of(few, evidence), values_of(Unrolled(), evidence)) < 1e-6


def test_hydra_with_the_hessian_is_unrolled_and_without_it_is_not():
    evidence = evidence_of(Small(mlp, weight_decay=0.02), 5)
    whole = values_of(Unrolled(), evidence)
    assert error(values_of(Hydra(hessian=True), evidence), whole) == 0
    assert error(values_of(Hydra(), evidence), whole) > 0.01
    assert Hydra(hessian=True).claims_units
    assert not Hydra().claims_units


@pytest.mark.parametrize("recipe", [{"weight_decay": 0.1}, {"momentum": 0.8, "weight_decay": 0.1}])
def test_hydra_without_the_hessian_carries_decay_and_momentum_forwards(recipe):
    """The recursion of the paper, written forwards for every example."""
    task = Small(mlp, **recipe)
    course = Course(task, run_of(task))
    parameters = list(course.module.parameters())

    def flat(values):
        return torch.cat([value.flatten() for value in values])

    size = sum(value.numel() for value in parameters)
    moved, velocity = (torch.zeros(task.n, size, dtype=torch.float64) for _ in range(2))
    for rate in course.rates:
        (feed,) = course.next_step()
        x, y = course.examples.read(feed.portion.examples)
        losses = task.loss(course.module(x), y)
        each = torch.zeros(task.n, size, dtype=torch.float64)
        for place, one in zip(feed.portion.examples, losses, strict=True):
            each[place] = flat(torch.autograd.grad(one, parameters, retain_graph=True)) / len(y)
        velocity = recipe.get("momentum", 0) * velocity + each + 0.1 * moved
        moved = moved - rate * velocity
        losses.mean().backward()
        course.descent.step(rate)
    ends = [flat(torch.autograd.grad(one, parameters, retain_graph=True)) for one in margins(task, course.module)]
    assert error(values_of(Hydra(), evidence_of(task, 5)), moved @ torch.stack(ends).T) < 1e-6


def test_data_value_embedding_walks_with_outer_products():
    task = Small(mlp)
    assert (
        error(values_of(DataValueEmbedding(), evidence_of(task, 5)), walked(task, run_of(task), "gauss_newton")) < 1e-6
    )


@pytest.mark.parametrize(
    "recipe", [{}, {"momentum": 0.5, "accumulate": 2}, {"optimizer": "adam", "schedule": "linear"}]
)
@pytest.mark.parametrize("weights", [False, True])
def test_tracin_at_all_steps_is_a_sum_over_autograd_steps(recipe, weights):
    task = Small(mlp, weights=weights, **recipe)
    course = Course(task, run_of(task))
    parameters = list(course.module.parameters())
    gain = 1 / (1 - recipe.get("momentum", 0))
    expected = torch.zeros(task.n, task.t, dtype=torch.float64)

    def flat(one):
        return torch.cat([value.flatten() for value in torch.autograd.grad(one, parameters, retain_graph=True)])

    for rate in course.rates:
        feeds = course.next_step()
        asked = torch.stack([flat(one) for one in margins(task, course.module)])
        places = sum(len(feed.portion.examples) for feed in feeds)
        for feed in feeds:
            x, y = course.examples.read(feed.portion.examples)
            for example, one in zip(feed.portion.examples, task.loss(course.module(x), y), strict=True):
                weight = task.train_weights[example] if weights else 1
                expected[example] -= gain * rate * weight / places * asked @ flat(one)
            course.loss(feed).backward()
        course.descent.step(rate)
    found = TracIn(steps="all")
    assert found.claims_units
    assert error(values_of(found, evidence_of(task, 5, epochs=(1, 3))), expected) < 1e-6


class Noisy(Dataset):
    """Another input at every reading."""

    def __len__(self):
        return 8

    def __getitem__(self, item):
        return torch.rand(4), item % 3


class Changing(Small):
    def __init__(self, module):
        super().__init__(module)
        self.train_data = Noisy()


class Itself:
    """A task that trains itself."""

    n, t = 6, 2
    measures: ClassVar[dict] = {"margin": lambda module, batch: module(batch)[:, 0]}

    def train(self, subset, seed, keep):
        return nn.Linear(2, 1)

    def batch(self, source, indices):
        return torch.ones(len(indices), 2)

    def loss(self, module, batch):
        return module(batch)[:, 0]


@pytest.mark.parametrize(
    ("estimator", "task", "said"),
    [
        (Unrolled(), lambda: Itself(), "^unrolled replays the training, which only a differentiable task's can be"),
        (TracIn(steps="all"), lambda: Itself(), "^tracin replays the training"),
        (Unrolled(), lambda: Changing(mlp), "^unrolled: training examples change from one reading to the next"),
        (Hydra(parameters=("2.*",)), lambda: Small(mlp), "^hydra: parameters cannot be chosen"),
        (
            Hydra(),
            lambda: Small(lambda: nn.Sequential(nn.Linear(4, 3), nn.SyncBatchNorm(3))),
            "^hydra: 1 is a SyncBatchNorm",
        ),
        (TracIn(steps="all", epochs=(1,)), lambda: Small(mlp), "^tracin: epochs names checkpoints"),
        (
            TracIn(steps="all"),
            lambda: Small(mlp, clip_norm=1.0),
            "^tracin: steps: all needs steps whose gradients are not",
        ),
        (TracIn(steps="all", weights="segment"), lambda: Small(mlp), "^tracin: weights: segment weighs checkpoints"),
    ],
)
def test_what_cannot_be_replayed_is_refused_before_anything_is_trained(estimator, task, said):
    made = task()
    with pytest.raises(ConfigError, match=said) as refused:
        estimator.check(Evidence(made.n, made.t, "margin", task=made))
    assert "\n" not in str(refused.value)


def test_what_can_be_is_not():
    for make in (mlp, normed):
        task = Small(make)
        for estimator in (Unrolled(), Hydra(), DataValueEmbedding(), TracIn(steps="all")):
            estimator.check(Evidence(task.n, task.t, "margin", task=task))


def test_a_training_that_was_not_kept_to_its_end_is_refused():
    evidence = evidence_of(Small(mlp), 5, epochs=(1, 2))
    (reference,) = evidence.references
    early = replace(evidence, references=(replace(reference, checkpoints=reference.checkpoints[:1]),))
    with pytest.raises(ConfigError, match=r"^unrolled: the last checkpoint .* seed 5 is of epoch 1, .* ends after 3$"):
        Unrolled().attribute(early)


def test_other_bits_are_refused_unless_they_are_accepted():
    evidence = evidence_of(Small(mlp), 5, epochs=(2, 3))
    state = evidence.references[0].checkpoints[0].state
    state["0.weight"] = state["0.weight"] * (1 + 1e-9)
    with pytest.raises(TaskError, match=r"^replaying the training of seed 5 gives other bits"):
        Unrolled().attribute(evidence)
    Unrolled(drift=1e-6).attribute(evidence)


@pytest.mark.parametrize("estimator", [Unrolled(), Hydra()])
def test_its_time_is_foreseen_without_a_model(estimator):
    task = Small(normed, momentum=0.5)
    seconds = estimator.foresee(Evidence(task.n, task.t, "margin", task=task))
    assert seconds is not None
    assert np.isfinite(seconds)
    assert seconds > 0
