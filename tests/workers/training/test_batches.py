"""Whose batches a run takes, and what each example weighs in them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from workers import Recipe, Run
from workers.errors import TaskError
from workers.randomness.streams import Streams
from workers.training.alone import train
from workers.training.batches import Batches

SEED, SIZE = 4, 8


def batches(task, run):
    return Batches(task, run, Streams(run.seed).order)


@pytest.fixture
def task(blobs):
    return blobs(Recipe(batch_size=SIZE, epochs=2))


@pytest.fixture
def shared(task):
    return Run(0, np.delete(np.arange(task.n), [3, 20]), SEED, order="shared")


def test_own_order_shuffles_the_subset_and_weighs_nothing(task, run):
    orders, weights = batches(task, run).orders(3)
    np.testing.assert_array_equal(orders, Streams(run.seed).order.orders(run.subset, 3))
    assert weights is None


def test_shared_order_is_that_of_the_full_set_with_others_in_the_places_of_those_left_out(task, shared):
    drawn = batches(task, shared)
    orders, weights = drawn.orders(3)
    full = Streams(SEED).order.orders(np.arange(task.n), 3)
    left_out = np.isin(full, [3, 20])
    assert drawn.size == task.n
    assert left_out.sum() == 6
    np.testing.assert_array_equal(orders[~left_out], full[~left_out])
    assert np.isin(orders[left_out], shared.subset).all()
    np.testing.assert_array_equal(weights, ~left_out)


def test_weights_are_the_products_of_the_task_s_and_the_run_s(task, shared):
    task.train_weights = torch.linspace(0.5, 2, task.n)
    factors = np.linspace(1, 3, len(shared.subset))
    factors[5] = 0
    for order in ("own", "shared"):
        run = replace(shared, order=order, weights=factors)
        orders, weights = batches(task, run).orders(1)
        expected = np.zeros(task.n)
        expected[run.subset] = factors * task.train_weights.double().numpy()[run.subset]
        full = Streams(SEED).order.orders(np.arange(task.n) if order == "shared" else run.subset, 1)
        np.testing.assert_allclose(weights, expected[full], rtol=1e-15)
        assert (shared.subset[5] in orders) == (order == "own")


def test_divided_by_weight_every_batch_has_the_mean_weight_1_or_none(task, shared):
    only = replace(shared, subset=np.array([5, 9]), weights=np.array([0.5, 3.0]), normalize="weight")
    weights = batches(task, only).orders(2)[1]
    plain = batches(task, replace(only, normalize="batch")).orders(2)[1]
    for epoch in range(2):
        for start in range(0, task.n, SIZE):
            at = slice(start, start + SIZE)
            given, raw = weights[epoch, at], plain[epoch, at]
            expected = raw * len(raw) / raw.sum() if raw.sum() else raw
            np.testing.assert_allclose(given, expected, rtol=1e-15)
    assert (weights == 0).all(axis=0).any()


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, np.nan], [1.0, np.inf], [1.0]])
def test_weights_that_are_none_are_one_line(task, weights):
    run = Run(6, np.array([1, 2]), SEED, weights=np.array(weights))
    with pytest.raises(
        TaskError, match=r"run 6: its weights must be finite numbers >= 0, one for each of its 2 examples"
    ):
        batches(task, run)


@pytest.mark.parametrize("subset", [[], [2]])
def test_a_run_without_weight_is_refused(task, subset):
    run = Run(6, np.array(subset, dtype=np.int64), SEED, order="shared", weights=np.zeros(len(subset)))
    with pytest.raises(TaskError, match="run 6: no example has a weight above 0"):
        batches(task, run)


def test_an_epoch_is_its_order_in_pieces(task, shared):
    whole, weights = batches(task, shared).orders(1)
    pieces = batches(task, shared).epoch()
    assert [len(one.examples) for one in pieces] == [SIZE] * 4 + [5]
    np.testing.assert_array_equal(torch.cat([one.examples for one in pieces]), whole[0])
    np.testing.assert_array_equal(torch.cat([one.weights for one in pieces]), weights[0])
    assert all(one.share == 1 and one.ends_step for one in pieces)
    own = batches(task, replace(shared, order="own"))
    assert all(one.weights is None for one in own.epoch())
    assert own.count == 2 * 5


@pytest.mark.parametrize("normalize", ["batch", "weight"])
def test_a_step_of_gathered_batches_is_the_mean_over_its_places_or_its_weight(blobs, shared, normalize):
    """In numbers written out: the places of three batches are one step, the last step takes what is left."""
    task = blobs(Recipe(batch_size=SIZE, accumulate=3, epochs=2))
    run = replace(shared, normalize=normalize, weights=np.linspace(0.5, 3, len(shared.subset)))
    raw = np.zeros(task.n)
    raw[run.subset] = run.weights
    losses = np.random.default_rng(0).random(task.n)
    full = Streams(SEED).order.orders(np.arange(task.n), 1)[0]
    expected = []
    for places in (full[: 3 * SIZE], full[3 * SIZE :]):
        total = (raw[places] * losses[places]).sum()
        expected.append(total / (len(places) if normalize == "batch" else raw[places].sum()))
    found, sums = 0.0, []
    for one in batches(task, run).epoch():
        found += one.share * float((one.weights * torch.from_numpy(losses)[one.examples]).mean())
        if one.ends_step:
            sums.append(found)
            found = 0.0
    np.testing.assert_allclose(sums, expected, rtol=1e-12)


def test_a_left_out_example_changes_no_bit_whatever_it_is(blobs, shared):
    recipe = Recipe(batch_size=SIZE, epochs=3, momentum=0.9)
    states = []
    for content in (0.0, 1e30, torch.nan):
        task = blobs(recipe, hidden=6, dropout=0.3)
        task.train_inputs[[3, 20]] = content
        task.train_targets[[3, 20]] = 0 if content == 0 else 2
        states.append(train(task, shared)[0].state_dict())
    for other in states[1:]:
        assert all(torch.equal(value, other[name]) for name, value in states[0].items())


def test_on_the_full_set_both_orders_are_one(blobs):
    task = blobs(Recipe(batch_size=SIZE, epochs=3, momentum=0.9, precision="float64"), hidden=6, dropout=0.3)
    own = Run(0, np.arange(task.n), SEED)
    first, second = (train(task, run)[0].state_dict() for run in (own, replace(own, order="shared")))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=1e-12)
