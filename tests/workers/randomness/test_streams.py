import numpy as np
import torch
from torch import nn

from workers.randomness.dropout import KeyedDropout
from workers.randomness.streams import Streams, build_module


def draws(seed):
    streams = Streams(seed)
    order = streams.order.orders(np.arange(1000), 1)[0]
    keys = streams.dropout_keys(4, 1)
    return [streams.initial, order.tobytes(), keys.tobytes(), streams.augmentation.integers(2**62)]


def test_a_seed_always_gives_the_same_streams():
    assert draws(5) == draws(5)


def test_streams_of_one_seed_and_of_neighbouring_seeds_differ():
    values = [value for seed in range(50) for value in draws(seed)]
    assert len(set(values)) == len(values)


def test_the_initial_seed_fits_torch():
    for seed in (0, 1, 2**32 - 1):
        torch.Generator().manual_seed(Streams(seed).initial)
        assert 0 <= Streams(seed).initial < 2**63


def test_reading_one_stream_leaves_the_others_alone():
    a, b = Streams(3), Streams(3)
    a.order.orders(np.arange(1000), 3)
    np.testing.assert_array_equal(a.dropout_keys(4, 2), b.dropout_keys(4, 2))
    assert a.augmentation.random() == b.augmentation.random()


def test_dropout_keys_are_int32_and_not_negative():
    keys = Streams(3).dropout_keys(100, 3)
    assert keys.shape == (100, 3)
    assert keys.dtype == np.int32
    assert (keys >= 0).all()


def test_a_module_depends_on_its_seed_only():
    def factory():
        return nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))

    torch.manual_seed(0)
    (a, layers), before = build_module(factory, 7, torch.float64), torch.get_rng_state()
    torch.manual_seed(99)
    b, _ = build_module(factory, 7, torch.float64)
    c, _ = build_module(factory, 8, torch.float64)
    torch.manual_seed(0)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a[0].weight, b[0].weight)
    assert not torch.equal(a[0].weight, c[0].weight)
    assert a[0].weight.dtype == torch.float64
    assert layers == [a[1]]
    assert isinstance(a[1], KeyedDropout)
