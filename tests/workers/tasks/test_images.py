"""The image tasks: digits, MNIST, CIFAR-10."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from workers import Recipe
from workers.errors import ConfigError


def test_digits_by_default(build, outcome):
    task = build("digits")
    assert task.describe() == "digits: 1,000 training examples, 200 queries, MLP 64-64-10"
    assert task.train_inputs.shape == (1000, 1, 8, 8)
    assert (task.train_inputs.min(), task.train_inputs.max()) == (0, 1)
    assert not task.flipped.any()
    assert outcome(task).outputs["correct"].mean() > 0.9


def test_digits_are_scikit_learns_in_a_fixed_order(build):
    task, other, plain = build("digits"), build("digits", split_seed=1), build("digits", split_seed=None)
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(1797)
    np.testing.assert_allclose(task.train_inputs.reshape(1000, 64), images[order[:1000]] / 16)
    assert task.query_targets.tolist() == labels[order[1000:1200]].tolist()
    assert other.query_targets.tolist() != task.query_targets.tolist()
    assert plain.query_targets.tolist() == labels[1000:1200].tolist()
    expected = (images[order[1003]].reshape(8, 8) * 255 / 16).round()
    np.testing.assert_array_equal(task.show("task", 3), expected)
    assert task.label("task", 3) == str(labels[order[1003]])
    assert task.groups()["label"].tolist() == labels[order[:1000]].tolist()


def test_flipped_labels_are_told(build):
    clean, noisy = build("digits"), build("digits", flip_labels=0.1, flip_seed=3)
    assert noisy.flipped.sum() == 100
    np.testing.assert_array_equal((clean.train_targets != noisy.train_targets).numpy(), noisy.flipped)
    assert torch.equal(clean.query_targets, noisy.query_targets)
    first = int(noisy.flipped.argmax())
    assert noisy.label("train", first) == f"{noisy.train_targets[first]} (flipped from {clean.train_targets[first]})"
    assert "100 labels flipped" in noisy.describe()


def test_digits_models_and_recipes(build, outcome):
    logistic = build("digits", model="logistic", n=200, t=50, recipe={"epochs": 3})
    assert logistic.recipe.epochs == 3
    assert logistic.recipe.momentum == 0.9
    assert [tuple(p.shape) for p in logistic.module().parameters()] == [(10, 64), (10,)]
    assert outcome(logistic, "train").outputs["margin"].shape == (200,)
    assert build("digits", recipe=Recipe(lr=0.5)).recipe == Recipe(lr=0.5)
    dropout = build("digits", hidden=9, dropout=0.4)
    assert [m.p for m in dropout.module().modules() if isinstance(m, torch.nn.Dropout)] == [0.4]


@pytest.mark.parametrize("model", ["mlp", "logistic", "cnn"])
def test_mnist_takes_the_first_examples_of_one_pool(build, outcome, mnist_file, model):
    task = build("mnist", path=mnist_file, n=40, t=15, model=model, recipe={"epochs": 2})
    assert task.train_targets.tolist() == [i % 10 for i in range(40)]
    assert task.query_targets.tolist() == [i % 10 for i in range(40, 55)]
    assert task.train_inputs.mean() == pytest.approx((30 / 255 + 3 / 28 * 220 / 255 - 0.1307) / 0.3081, abs=0.02)
    assert task.show("train", 4)[9].tolist() == [250] * 28
    assert outcome(task).outputs["margin"].shape == (15,)


def test_mnist_is_trained_as_in_the_literature(build, mnist_file):
    mlp, logistic = (build("mnist", path=mnist_file, n=40, t=15, model=model) for model in ("mlp", "logistic"))
    assert mlp.describe() == "MNIST: 40 training examples, 15 queries, MLP 784-128-64-10, dropout 0.1"
    recipe = mlp.recipe
    assert (recipe.lr, recipe.momentum, recipe.epochs, recipe.batch_size) == (0.01, 0.9, 50, 64)
    recipe = logistic.recipe
    assert (recipe.lr, recipe.momentum, recipe.epochs, recipe.batch_size) == (0.01, 0.0, 20, 32)


@pytest.mark.parametrize("model", ["resnet9", "cnn"])
def test_cifar10(build, outcome, cifar_file, model):
    task = build("cifar10", path=cifar_file, n=20, t=10, width=4, model=model, recipe={"epochs": 1})
    assert task.train_inputs.shape == (20, 3, 32, 32)
    assert len(set(task.train_targets.tolist())) > 4
    image = task.show("train", 2)
    expected = (image[:, :, 1] / 255 - 0.4822) / 0.2435
    np.testing.assert_allclose(task.train_inputs[2, 1].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert sorted(task.query_targets.tolist()) == [7, 7, 8, 8, 8, 8, 9, 9, 9, 9]
    assert task.label("task", 0) in ("horse", "ship", "truck")
    assert (task.recipe.crop, task.recipe.flip) == (4, True)
    assert np.isfinite(outcome(task).outputs["margin"]).all()


def test_the_normalization_is_the_literatures_where_it_is_named(build, outcome, cifar_file):
    options = {"path": cifar_file, "n": 20, "t": 10, "width": 4, "recipe": {"epochs": 1}}
    kinds = {"batch": torch.nn.BatchNorm2d, "group": torch.nn.GroupNorm}
    for norm, kind in kinds.items():
        task = build("cifar10", norm=norm, **options)
        assert sum(isinstance(part, kind) for part in task.module().modules()) == 8
        assert np.isfinite(outcome(task).outputs["margin"]).all()
    assert isinstance(build("cifar10", **options).module()[1], torch.nn.GroupNorm)


@pytest.mark.parametrize("with_test_set", [True, False])
def test_cifar2_is_the_cats_and_dogs_of_cifar10(build, outcome, tmp_path, with_test_set):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (80, 32, 32, 3), dtype=np.uint8), np.arange(80) % 10
    test = {"x_test": x[60:], "y_test": y[60:]} if with_test_set else {}
    np.savez(tmp_path / "cifar.npz", x=x[:60], y=y[:60], **test)
    task = build("cifar2", path="cifar.npz", n=8, t=4, split_seed=None, width=4, recipe={"epochs": 1, "batch_size": 4})
    animals = [i for i in range(80) if y[i] in (3, 5)]
    queries = animals[12:16] if with_test_set else animals[8:12]
    assert task.train_targets.tolist() == [int(y[i] == 5) for i in animals[:8]]
    assert task.query_targets.tolist() == [int(y[i] == 5) for i in queries]
    np.testing.assert_array_equal(task.show("task", 1), x[queries[1]])
    assert [task.label("train", i) for i in range(2)] == ["cat", "dog"]
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in task.module().modules())
    assert task.module()[-1].out_features == 2
    assert np.isfinite(outcome(task).outputs["margin"]).all()


def test_more_than_there_is_is_refused(build, cifar_file, mnist_file):
    with pytest.raises(ConfigError, match="t = 11 is more than the 10 images"):
        build("cifar10", path=cifar_file, n=20, t=11)
    with pytest.raises(ConfigError, match="do not fit into 60"):
        build("mnist", path=mnist_file, n=50, t=11)
