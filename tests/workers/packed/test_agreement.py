"""Packed equals alone, in float64, after the full recipe, over layers, optimizers, schedules and augmentation."""

import pytest

from workers import Recipe

CHAINS = ("linear", "relu", "dropout", "deep", "wide")
FLAT = (*CHAINS, "gelu", "layer_norm", "batch_norm", "tokens")
IMAGES = ("convolution", "residual")
OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2},
    "nesterov": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.8, "nesterov": True},
    "adam": {"optimizer": "adam", "lr": 0.01, "weight_decay": 1e-2},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
}
SCHEDULES = {
    "constant": {},
    "step": {"schedule": "step", "step_epochs": 1, "step_factor": 0.3},
    "cosine": {"schedule": "cosine"},
    "one_cycle": {"schedule": "one_cycle"},
}
AUGMENTATIONS = {
    "plain": {},
    "crop": {"crop": 2},
    "flip": {"flip": True},
    "both": {"crop": 1, "flip": True},
}
EPOCHS = (0, 1, 3)
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
weighting = pytest.mark.parametrize("weighted", [False, True], ids=["even", "weighted"])


def recipe(optimizer, schedule, smoothing, **more):
    return Recipe(
        **OPTIMIZERS[optimizer],
        **SCHEDULES[schedule],
        label_smoothing=smoothing,
        epochs=3,
        batch_size=8,
        precision="float64",
        **more,
    )


@pytest.mark.parametrize("architecture", CHAINS)
@optimizers
@schedules
@weighting
def test_resident(zoo, compare, unequal_runs, architecture, optimizer, schedule, weighted):
    task = zoo(recipe(optimizer, schedule, 0.2 * weighted), architecture, weighted)
    compare(task, "resident", unequal_runs(EPOCHS), "margin")


@pytest.mark.parametrize("batch_size", [1, 3, 20, 64])
@pytest.mark.parametrize("architecture", ["linear", "broad"])
@pytest.mark.parametrize("optimizer", ["nesterov", "adam"])
def test_resident_batches(zoo, compare, unequal_runs, batch_size, architecture, optimizer):
    """Tiles, vectors and blocks of every shape: batches beyond and below them, and layers deeper than a block."""
    task = zoo(recipe(optimizer, "constant", 0.1).model_copy(update={"batch_size": batch_size}), architecture, True)
    compare(task, "resident", unequal_runs(EPOCHS), "margin")


@pytest.mark.parametrize("architecture", [*FLAT, *IMAGES])
@optimizers
def test_stacked(zoo, compare, unequal_runs, architecture, optimizer):
    place = (*FLAT, *IMAGES).index(architecture) + list(OPTIMIZERS).index(optimizer)
    schedule = list(SCHEDULES)[place % len(SCHEDULES)]
    weighted = place % 2 == 1
    augmentation = AUGMENTATIONS["both"] if architecture in IMAGES else {}
    task = zoo(recipe(optimizer, schedule, 0.1 * weighted, **augmentation), architecture, weighted)
    compare(task, "stacked", unequal_runs(EPOCHS), "margin")


@optimizers
@schedules
def test_stacked_recipes(zoo, compare, unequal_runs, optimizer, schedule):
    compare(zoo(recipe(optimizer, schedule, 0.2), "dropout", True), "stacked", unequal_runs(EPOCHS), "margin")


@pytest.mark.parametrize("architecture", IMAGES)
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_stacked_augmentation(zoo, compare, unequal_runs, architecture, augmentation):
    task = zoo(recipe("momentum", "cosine", 0.0, **AUGMENTATIONS[augmentation]), architecture)
    compare(task, "stacked", unequal_runs(EPOCHS), "margin")


@pytest.mark.parametrize("path", ["resident", "stacked"])
@pytest.mark.parametrize("squeeze", [False, True])
@optimizers
def test_regression(line, compare, unequal_runs, path, squeeze, optimizer):
    task = line(recipe(optimizer, "cosine", 0.0), squeeze)
    compare(task, path, unequal_runs(EPOCHS), "squared_error")
