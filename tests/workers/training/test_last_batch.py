"""The last batch of an epoch: left out if asked for, and where it is too small for a normalization, the remedy is named."""

import numpy as np
import pytest
import torch
from torch import nn

from workers import Classification, Queries, Recipe, Run
from workers.errors import TaskError
from workers.packs import train_pack
from workers.reproducibility import check_reproducible
from workers.training.batches import Batches
from workers.training.last_batch import REMEDY, check_last_batch

N = 33


class Small(Classification):
    """A normalization over the batch, or none."""

    def __init__(self, norm=nn.BatchNorm1d, **recipe):
        generator = torch.Generator().manual_seed(3)
        self.recipe, self.norm = Recipe(**{"batch_size": 8, "epochs": 2} | recipe), norm
        self.train_inputs = torch.randn(N, 5, generator=generator)
        self.train_targets = torch.randint(3, (N,), generator=generator)
        self.query_inputs, self.query_targets = self.train_inputs[:4], self.train_targets[:4]

    def module(self):
        return nn.Sequential(nn.Linear(5, 4), self.norm(4), nn.Linear(4, 3))


class Shuffles:
    def orders(self, subset, epochs):
        return np.stack([np.roll(subset, epoch) for epoch in range(epochs)])


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(("size", "places"), [(33, 32), (32, 32), (10, 8), (8, 8)])
def test_whole_batches_are_what_is_left(size, places, accumulate):
    task = Small(drop_last=True, accumulate=accumulate)
    batches = Batches(task, Run(0, np.arange(size), 0), Shuffles())
    portions = batches.epoch()
    assert [len(one.examples) for one in portions] == [8] * (places // 8)
    assert torch.cat([one.examples for one in portions]).tolist() == list(range(places))
    assert (batches.size, batches.count) == (places, 2 * (places // 8))
    steps = sum(one.ends_step for one in portions)
    assert task.recipe.steps_per_epoch(size) == task.recipe.steps_per_epoch(places) == steps
    assert len(task.recipe.learning_rates(size)) == 2 * steps
    assert batches.trained_on.tolist() == list(range(size))


@pytest.mark.parametrize("method", ["alone", "stacked"])
def test_a_last_batch_of_one_fails_its_run_with_the_remedy(method):
    runs = [Run(0, np.arange(N), 0), Run(1, np.arange(N - 1), 1)]
    failed, done = train_pack(Small(), runs, ["margin"], Queries(), method=method, width=2)
    assert done.failure is None
    assert failed.failure.kind == "TaskError"
    assert failed.failure.message.startswith("the last batch of an epoch has 1 example: ")
    assert failed.failure.message.endswith(REMEDY)
    outcomes = train_pack(Small(drop_last=True), runs, ["margin"], Queries(), method=method, width=2)
    assert [outcome.failure for outcome in outcomes] == [None, None]


@pytest.mark.parametrize("method", ["alone", "stacked", "resident"])
def test_a_run_of_less_than_a_batch_fails_alone(method):
    runs = [Run(0, np.arange(7), 0), Run(1, np.arange(8), 1)]
    task = Small(lambda _: nn.ReLU(), drop_last=True)
    failed, done = train_pack(task, runs, ["margin"], Queries(), method=method, width=2)
    assert done.failure is None
    assert failed.failure.message == (
        "recipe.drop_last leaves no batch: 7 examples are fewer than recipe.batch_size = 8"
    )


def test_what_is_no_last_batch_keeps_its_own_error():
    (outcome,) = train_pack(Small(batch_size=1), [Run(0, np.arange(4), 0)], ["margin"], Queries(), method="alone")
    assert outcome.failure.kind == "ValueError"


def test_it_is_told_beforehand_where_the_size_tells_it():
    with pytest.raises(TaskError, match="has 1 example"):
        check_last_batch(Small(), 33)
    check_last_batch(Small(), 32)
    check_last_batch(Small(nn.LayerNorm), 33)
    check_last_batch(Small(drop_last=True), 33)
    check_last_batch(Small(), 33, in_full=False)
    with pytest.raises(TaskError, match="leaves no batch"):
        check_last_batch(Small(drop_last=True), 7)


def test_the_check_of_seeds_has_a_batch_left():
    task = Small(nn.LayerNorm, drop_last=True, batch_size=N + 50)
    check_reproducible(task)
