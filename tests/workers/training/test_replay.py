"""A training that is taken once more is the same to the bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from workers import Queries, Recipe, Run
from workers.errors import TaskError
from workers.packs import PackTrainer
from workers.training.alone import train
from workers.training.replay import Replay

RECIPES = {
    "sgd": {"lr": 0.1},
    "nesterov": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "schedule": "cosine"},
    "adam": {"optimizer": "adam", "lr": 0.01, "clip_norm": 0.5, "ema": 0.9},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "eps_in": "root", "eps": 1e-3, "accumulate": 3, "no_decay": ["*bias"]},
}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("order", ["own", "shared"])
def test_every_step_is_replayed_to_the_bit(blobs, name, order):
    """From any checkpoint, and from any moment in between, one gets to the end that the training had."""
    task = blobs(Recipe(epochs=4, batch_size=8, **RECIPES[name]), hidden=6, dropout=0.3)
    run = Run(0, np.arange(task.n), 5, (0, 1, 2, 3, 4), order, optimizer_state=True)
    _, kept = train(task, run)
    replay = Replay(task, run, kept)
    assert replay.starts == [0, *(one.step for one in kept[1:-1])]
    moments = list(replay.moments(0, replay.steps))  # compared with every checkpoint on the way
    assert [one.step for one in moments] == list(range(replay.steps))
    for checkpoint in kept[:-1]:
        assert same(moments[checkpoint.step].state, checkpoint.state)
        assert same(moments[checkpoint.step].optimizer, checkpoint.optimizer)
    middle = moments[kept[1].step + 1]
    replay.move_to(middle)
    for expected in moments[middle.step :]:
        found = replay.course.moment()
        assert same(found.state, expected.state)
        assert same(found.optimizer, expected.optimizer)
        replay.advance()
    assert same(replay.course.state(), kept[-1].state)
    replay.begin(kept[2].step + 1)
    assert same(replay.course.state(), moments[kept[2].step + 1].state)


def test_augmentation_is_drawn_as_it_was(blobs):
    class Images(blobs):
        def module(self):
            return nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))

    task = Images(Recipe(epochs=3, batch_size=7, crop=1, flip=True, momentum=0.5, batch_norm="recomputed"))
    task.train_inputs = task.train_inputs[:, :4].reshape(-1, 1, 2, 2)
    run = Run(0, np.arange(task.n), 5, (1, 2, 3), optimizer_state=True)
    _, kept = train(task, run)
    replay = Replay(task, run, kept)
    replay.begin(kept[0].step + 2)
    for _ in range(kept[0].step + 2, replay.steps):
        replay.advance()
    assert same(replay.course.state(), kept[-1].state)


def test_without_the_optimizers_state_it_begins_at_the_start(blobs):
    recipe = Recipe(epochs=3, batch_size=8)
    run = Run(0, np.arange(37), 5, (1, 2, 3))
    for options, starts in (({}, [0, 5, 10]), ({"momentum": 0.9}, [0]), ({"ema": 0.5}, [0])):
        task = blobs(recipe.model_copy(update=options))
        assert Replay(task, run, train(task, run)[1]).starts == starts


def test_other_bits_are_named(blobs):
    task, run = blobs(Recipe(epochs=3, batch_size=8)), Run(0, np.arange(37), 5, (1, 2, 3))
    _, kept = train(task, run)
    kept[1].state["weight"][0, 0] *= 1 + 1e-6
    with pytest.raises(
        TaskError, match=r"^replaying the training of seed 5 gives other bits than .* of epoch 2 has \(rel"
    ):
        list(Replay(task, run, kept).moments(0, 12))
    list(Replay(task, run, kept, drift=1e-5).moments(0, 12))


def test_another_recipe_is_named(blobs):
    task, run = blobs(Recipe(epochs=3, batch_size=8)), Run(0, np.arange(37), 5, (1, 2, 3))
    _, kept = train(task, run)
    for change, said in (
        ({"lr": 0.2}, "step 5 at learning rate 0.1; by the task's recipe that is step 5 at learning rate 0.2"),
        ({"batch_size": 10}, "that is step 4 at"),
        ({"epochs": 2}, "that is step 15, beyond its end: it was trained by another recipe"),
    ):
        other = blobs(task.recipe.model_copy(update=change))
        with pytest.raises(TaskError, match=said):
            Replay(other, run, kept)


def test_packs_train_alone_what_is_to_be_replayed(blobs):
    task = blobs(Recipe(epochs=2, batch_size=8, momentum=0.9), hidden=6)
    runs = [Run(row, np.arange(37), row, (1, 2), optimizer_state=True) for row in range(3)]
    for run, outcome in zip(runs, PackTrainer(task).train(runs, ("loss",), Queries()), strict=True):
        expected = train(task, run)[1]
        assert [same(one.state, two.state) for one, two in zip(outcome.checkpoints, expected, strict=True)] == [
            True,
            True,
        ]
        assert same(outcome.checkpoints[0].optimizer, expected[0].optimizer)
        assert all(one.optimizer is None for one in train(task, replace(run, optimizer_state=False))[1])
