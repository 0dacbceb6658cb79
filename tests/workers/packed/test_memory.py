import pytest
import torch

from workers import Recipe
from workers.packed import memory


@pytest.mark.parametrize(("optimizer", "copies"), [("sgd", 4), ("adam", 5)])
def test_a_model_takes_at_least_its_state(zoo, optimizer, copies):
    task = zoo(Recipe(optimizer=optimizer, lr=0.1, batch_size=1), "wide")
    parameters = sum(value.numel() for value in task.module().parameters())
    size = memory.bytes_per_model(task)
    assert copies * 4 * parameters <= size < 1.5 * copies * 4 * parameters


@pytest.mark.parametrize(
    ("options", "copies"), [({"ema": 0.9}, 1), ({"accumulate": 2}, 1), ({"ema": 0.9, "accumulate": 3}, 2)]
)
def test_an_average_and_gathered_gradients_are_a_copy_each(zoo, options, copies):
    plain, more = (memory.bytes_per_model(zoo(Recipe(batch_size=8, **extra), "wide")) for extra in ({}, options))
    assert more - plain == copies * 4 * sum(value.numel() for value in zoo(Recipe(), "wide").module().parameters())


def test_activations_count_with_the_batch(zoo):
    small, large = (memory.bytes_per_model(zoo(Recipe(batch_size=size), "convolution")) for size in (1, 32))
    assert large > 5 * small


def test_the_width_follows_what_is_free(zoo, monkeypatch):
    task = zoo(Recipe(), "relu")
    one = memory.bytes_per_model(task)
    for free, width in ((40 * one, 10), (one, 1)):
        monkeypatch.setattr(memory, "available_bytes", lambda _device, free=free: free)
        assert memory.largest_width(task, torch.device("cpu")) == width


def test_the_machine_has_memory():
    assert memory.available_bytes(torch.device("cpu")) > 1 << 20
