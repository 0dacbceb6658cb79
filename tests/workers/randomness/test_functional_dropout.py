"""What functions draw in a forward pass comes from the step's key; everything else of them is torch's own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workers.errors import TaskError
from workers.randomness.dropout import derived_key, keep_mask
from workers.randomness.functional_dropout import KeyedCalls


def key(value):
    return torch.tensor(value, dtype=torch.int32)


def test_dropout_is_torchs_with_a_mask_of_the_key_and_the_call():
    x = torch.randn(50, 40, dtype=torch.float64)
    with KeyedCalls(key(7)) as calls:
        first, second = F.dropout(x, 0.3), F.dropout(x, p=0.3, training=True)
        kept = F.dropout(x, 0.3, training=False), F.dropout(x, 0.0)
    assert calls.count == 2
    for place, found in enumerate((first, second)):
        mask = keep_mask(derived_key(key(7), place), x.shape, 0.3)
        torch.testing.assert_close(found, torch.where(mask, x / 0.7, 0.0))
        assert abs(float((found != 0).double().mean()) - 0.7) < 6 * (0.21 / 2000) ** 0.5
    assert not torch.equal(first, second)
    assert all(torch.equal(one, x) for one in kept)


def test_channels_are_dropped_whole():
    x = torch.ones(40, 30, 4, 5)
    with KeyedCalls(key(3)):
        found = F.dropout2d(x, 0.5).flatten(2)
    assert bool((found == found[..., :1]).all())
    assert set(found.unique().tolist()) == {0.0, 2.0}


def test_what_is_drawn_in_place_is_written():
    x = torch.ones(1000)
    with KeyedCalls(key(3)):
        F.dropout(x, 0.5, inplace=True)
    assert set(x.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(("mask", "causal"), [("none", False), ("none", True), ("bool", False), ("float", False)])
def test_attention_is_torchs_where_its_dropout_keeps_all(mask, causal, monkeypatch):
    """The mask is made to keep everything: what is left must be torch's attention, scaled by 1 / (1 - p)."""
    monkeypatch.setattr(
        "workers.randomness.functional_dropout.keep_mask", lambda key, shape, p: torch.ones(shape, dtype=torch.bool)
    )
    q, k, v = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64).unbind()
    allowed = torch.rand(6, 6) < 0.7
    allowed.fill_diagonal_(True)
    given = {"none": None, "bool": allowed, "float": torch.randn(6, 6, dtype=torch.float64)}[mask]
    with KeyedCalls(key(1)) as calls:
        found = F.scaled_dot_product_attention(q, k, v, given, 0.25, causal)
        grouped = F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], dropout_p=0.25, enable_gqa=True, scale=0.3)
    torch.testing.assert_close(found * 0.75, F.scaled_dot_product_attention(q, k, v, given, is_causal=causal))
    expected = F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True, scale=0.3)
    torch.testing.assert_close(grouped * 0.75, expected)
    assert calls.count == 2


@pytest.mark.parametrize("need_weights", [False, True])
def test_layers_of_attention_are_governed_and_leave_torch_as_it_was(need_weights):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    x = torch.randn(3, 5, 8)
    before, functions = torch.get_rng_state(), (F.dropout, F.scaled_dot_product_attention)
    with KeyedCalls(key(5)) as calls:
        first = layer(x, x, x, need_weights=need_weights)[0]
    with KeyedCalls(key(5)):
        again = layer(x, x, x, need_weights=need_weights)[0]
    with KeyedCalls(key(6)):
        other = layer(x, x, x, need_weights=need_weights)[0]
    assert calls.count == 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert (F.dropout, F.scaled_dot_product_attention) == functions
    layer.eval()
    plain = layer(x, x, x, need_weights=need_weights)[0]
    with KeyedCalls(key(5)):
        torch.testing.assert_close(layer(x, x, x, need_weights=need_weights)[0], plain)


def test_a_batch_of_keys_is_a_loop_over_them():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.4, batch_first=True).double()
    x = torch.randn(3, 5, 8, dtype=torch.float64)

    def run(one):
        with KeyedCalls(one):
            return layer(x)

    keys = torch.tensor([4, 5, 2**30], dtype=torch.int32)
    torch.testing.assert_close(torch.vmap(run)(keys), torch.stack([run(one) for one in keys]))


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: x + torch.randn_like(x),
        lambda x: x * torch.rand(x.shape),
        lambda x: torch.bernoulli(x.sigmoid()),
        lambda x: F.alpha_dropout(x, 0.5, training=True),
        lambda x: x.clone().normal_(),
    ],
)
def test_other_draws_are_refused_by_name(draw):
    with KeyedCalls(key(0)), pytest.raises(TaskError, match=r"draws random numbers by `.+` in its forward pass"):
        draw(torch.ones(3))
