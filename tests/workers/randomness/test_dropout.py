import pytest
import torch
from torch import nn

from workers.randomness.dropout import KeyedDropout, keep_mask, key_dropout


def key(value):
    return torch.tensor(value, dtype=torch.int32)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_mask_rate(p):
    """10^6 positions: six standard errors of a mean are at most 0.003."""
    rate = keep_mask(key(123), torch.Size([1000, 1000]), p).double().mean().item()
    assert abs(rate - (1 - p)) <= 6 * (p * (1 - p) / 1e6) ** 0.5


def test_masks_of_different_keys_and_positions_are_uncorrelated():
    masks = torch.stack([keep_mask(key(value), torch.Size([100_000]), 0.5).double() for value in (0, 1, 2, 1 << 30)])
    shifted = torch.cat([masks, masks[:1].roll(1, dims=1)])
    off_diagonal = torch.corrcoef(shifted) - torch.eye(5)
    assert off_diagonal.abs().max() < 6 / 100_000**0.5


def test_the_key_alone_decides():
    shape = torch.Size([7, 5])
    assert torch.equal(keep_mask(key(4), shape, 0.5), keep_mask(key(4), shape, 0.5))
    assert not torch.equal(keep_mask(key(4), shape, 0.5), keep_mask(key(5), shape, 0.5))


def test_vmap_over_keys_is_a_loop():
    keys, shape = torch.tensor([3, 1 << 30, 0], dtype=torch.int32), torch.Size([8, 6])
    together = torch.vmap(lambda k: keep_mask(k, shape, 0.3))(keys)
    assert torch.equal(together, torch.stack([keep_mask(k, shape, 0.3) for k in keys]))


def test_training_scales_and_evaluation_is_the_identity():
    layer, x = KeyedDropout(0.25), torch.randn(2000, 5)
    layer.key = key(9)
    kept = keep_mask(layer.key, x.shape, 0.25)
    torch.testing.assert_close(layer(x), torch.where(kept, x / 0.75, 0.0))
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("number", [0, 9, 2**31 - 1])
def test_a_number_draws_the_same_mask_as_the_key(dtype, number):
    layer, x = KeyedDropout(0.3), torch.randn(40, 7, dtype=dtype, requires_grad=True)
    layer.key = key(number)
    by_key = layer(x)
    layer.number = number
    by_number = layer(x)
    assert by_number.dtype == dtype
    assert torch.equal(by_number, by_key)
    assert torch.equal(by_number == 0, ~keep_mask(layer.key, x.shape, 0.3))
    (slope,) = torch.autograd.grad(by_number.sum(), x)
    assert torch.equal(slope == 0, by_number == 0)


def test_every_dropout_layer_is_replaced_in_order():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.Sequential(nn.Dropout(0.2), nn.ReLU()))
    layers = key_dropout(module)
    assert [layer.p for layer in layers] == [0.1, 0.2]
    assert [layer for layer in module.modules() if isinstance(layer, KeyedDropout)] == layers
    assert not any(isinstance(layer, nn.Dropout) for layer in module.modules())


@pytest.mark.parametrize(("layer", "shape"), [(nn.Dropout1d, (40, 30, 5)), (nn.Dropout2d, (40, 30, 4, 5))])
def test_layers_that_drop_channels_drop_them_whole(layer, shape):
    (keyed,) = key_dropout(module := nn.Sequential(layer(0.5)))
    keyed.key, keyed.number = key(4), 4
    found = module(torch.ones(shape)).flatten(2)
    assert bool((found == found[..., :1]).all())
    assert set(found.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(module.eval()(torch.ones(shape)), torch.ones(shape))


def test_other_kinds_of_dropout_are_refused():
    with pytest.raises(NotImplementedError, match="AlphaDropout"):
        key_dropout(nn.Sequential(nn.AlphaDropout(0.1)))
