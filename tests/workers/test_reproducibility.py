"""One seed gives one model, or it is said which parameter differs."""

import numpy as np
import pytest
import torch
from torch import nn

from workers import Recipe
from workers.errors import TaskError
from workers.reproducibility import check_reproducible


class Own:
    """A training of the user's; its noise has a generator of its own."""

    n, t = 8, 2
    measures = {"loss": lambda module, batch: module(batch)[:, 0]}  # noqa: RUF012

    def __init__(self, seeded: bool):
        self.seeded, self.calls = seeded, 0

    def train(self, subset, seed, keep):
        self.calls += 1
        generator = torch.Generator().manual_seed(seed if self.seeded else self.calls)
        module = nn.Linear(2, 1)
        module.bias.data += torch.randn(1, generator=generator)
        return module

    def batch(self, source, indices):
        return torch.zeros(len(indices), 2)

    def loss(self, module, batch):
        return module(batch)[:, 0]


def test_what_the_seed_governs_passes(blobs, mean_task):
    own = Own(seeded=True)
    check_reproducible(own)
    assert own.calls == 2
    check_reproducible(blobs(Recipe(epochs=3), hidden=4, dropout=0.5))
    check_reproducible(mean_task)
    assert mean_task.train_calls == 0


@pytest.mark.parametrize("what", ["loss", "measure 'loss'"])
def test_numbers_of_a_training_of_the_user_s_are_one_an_example(what, monkeypatch):
    own = Own(seeded=True)
    if what == "loss":
        monkeypatch.setattr(own, "loss", lambda module, batch: module(batch).mean())
    else:
        monkeypatch.setattr(own, "measures", {"loss": lambda module, batch: module(batch)})
    with pytest.raises(
        TaskError, match=rf"^Own: {what} must return one number an example, of shape \(b,\); for 2 exam"
    ):
        check_reproducible(own)


def test_other_bits_are_named_with_the_parameter(blobs):
    with pytest.raises(TaskError, match=r"^Own: trained twice with one seed on 8 examples, `bias` differs by up to"):
        check_reproducible(Own(seeded=False))
    task, rng = blobs(Recipe(epochs=3)), np.random.default_rng(0)

    def drawn() -> nn.Module:
        module = nn.Linear(5, 3)
        module.weight.data.copy_(torch.from_numpy(rng.standard_normal((3, 5))))
        return module

    task.module = drawn
    with pytest.raises(TaskError, match="Blobs: trained twice with one seed on 37 examples, `weight` differs"):
        check_reproducible(task)


def test_a_training_that_fails_is_left_to_its_runs(blobs):
    task = blobs(Recipe())
    task.module = lambda: nn.Linear(4, 3)
    check_reproducible(task)
