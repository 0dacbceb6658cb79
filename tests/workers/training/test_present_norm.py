"""Batch normalization of the present examples against torch's of a batch that has only them."""

import copy

import pytest
import torch
from torch import nn

from workers import Classification, Recipe
from workers.errors import TaskError
from workers.training.present_norm import check_apart, exchange_norms

SHAPES = {nn.BatchNorm1d: (6, 3), nn.BatchNorm2d: (6, 3, 4, 5), nn.BatchNorm3d: (6, 3, 2, 3, 2)}
FORMS = [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}]


def both(kind, **form):
    torch.manual_seed(0)
    plain = nn.Sequential(kind(3, **form)).double()
    if form.get("affine", True):
        nn.init.normal_(plain[0].weight)
        nn.init.normal_(plain[0].bias)
    exchanged = copy.deepcopy(plain)
    (norm,) = exchange_norms(exchanged)
    return plain, exchanged, norm


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("kind", SHAPES)
def test_it_is_torch_s_on_the_present_examples(kind, form):
    plain, exchanged, norm = both(kind, **form)
    assert list(plain.state_dict()) == list(exchanged.state_dict())
    for step in range(3):
        x = torch.randn(SHAPES[kind], dtype=torch.float64, requires_grad=True)
        present = torch.tensor([True, True, False, True, False, True]).roll(step)
        norm.present = present
        expected, found = plain(x[present]), exchanged(x)[present]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        weigh = torch.randn_like(expected)
        one, other = (torch.autograd.grad((y * weigh).sum(), x, retain_graph=True)[0] for y in (expected, found))
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-11)
        assert not other[~present].any()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(exchanged.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    x = torch.randn(SHAPES[kind], dtype=torch.float64)
    torch.testing.assert_close(exchanged.eval()(x), plain.eval()(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_with_nobody_there_running_statistics_stay_and_all_is_finite(momentum):
    _, exchanged, norm = both(nn.BatchNorm1d, momentum=momentum)
    exchanged(torch.randn(6, 3, dtype=torch.float64) + 1)
    before = copy.deepcopy(exchanged.state_dict())
    norm.present = torch.zeros(6, dtype=torch.bool)
    out = exchanged(torch.randn(6, 3, dtype=torch.float64))
    assert out.isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in exchanged.state_dict().items())


def test_one_value_moves_the_running_mean_and_no_variance():
    _, exchanged, norm = both(nn.BatchNorm1d)
    x = torch.randn(6, 3, dtype=torch.float64)
    norm.present = torch.arange(6) == 2
    out = exchanged(x)
    torch.testing.assert_close(norm.running_mean, 0.1 * x[2])
    assert torch.equal(norm.running_var, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(out[2], norm.bias)


def test_while_all_are_there_it_is_torch_s_to_the_bit():
    plain, exchanged, _ = both(nn.BatchNorm2d)
    x = torch.randn(SHAPES[nn.BatchNorm2d], dtype=torch.float64)
    assert torch.equal(plain(x), exchanged(x))
    assert all(torch.equal(value, exchanged.state_dict()[name]) for name, value in plain.state_dict().items())


def test_one_that_stands_in_two_places_stays_one():
    norm = nn.BatchNorm1d(3)
    module = nn.Sequential(norm, nn.Linear(3, 3), norm)
    assert len(exchange_norms(module)) == 1
    assert module[0] is module[2]


class Own(nn.BatchNorm1d):
    pass


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize(
    ("make", "mixes"),
    [(nn.BatchNorm1d, False), (nn.LayerNorm, False), (Own, True), (lambda _: Centred(), True)],
)
def test_a_module_that_mixes_examples_in_its_own_way_is_refused(make, mixes):
    class Small(Classification):
        def __init__(self):
            self.recipe = Recipe()
            self.train_inputs, self.train_targets = torch.randn(9, 5), torch.arange(9) % 3
            self.query_inputs, self.query_targets = self.train_inputs, self.train_targets

        def module(self):
            return nn.Sequential(nn.Linear(5, 4), make(4), nn.Dropout(0.5), nn.Linear(4, 3))

    if mixes:
        with pytest.raises(
            TaskError, match=r"^Small.module\(\) mixes the examples of a batch otherwise than by"
        ) as told:
            check_apart(Small())
        assert "\n" not in str(told.value)
    else:
        check_apart(Small())
