"""CIFAR-10's cats and dogs, by a ResNet-9 or a small CNN, with random crops and flips."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workers.data import images
from workers.data.shared import Arrays
from workers.tasks import arguments
from workers.tasks.arguments import RecipeArgument, checked, override
from workers.tasks.cifar10 import RECIPE, Cifar10, Model, Norm, Width, network_of
from workers.tasks.images import ImageTask, choose

CATS, DOGS = 3, 5
"""Their classes in CIFAR-10."""


class Cifar2(ImageTask):
    """Cats and dogs of CIFAR-10, two classes of 5,000 training and 1,000 test images; `path` is that of `cifar10`.

    Where there is a test set, queries are its first t cats and dogs; otherwise they follow the training examples.
    """

    title = "CIFAR-2"
    mean, std = Cifar10.mean, Cifar10.std
    classes = ("cat", "dog")

    @checked
    def __init__(
        self,
        path: arguments.ImagesPath = None,
        n: arguments.Count = 10_000,
        t: arguments.QueryCount = 2_000,
        split_seed: arguments.SplitSeed = 0,
        model: Model = "resnet9",
        width: Width = 64,
        norm: Norm = "batch",
        flip_labels: arguments.FlipLabels = 0.0,
        flip_seed: arguments.FlipSeed = 0,
        download: arguments.Download = False,
        recipe: RecipeArgument = None,
    ):
        train, queries = choose(cats_and_dogs(images.cifar10(path, download)), n, t, split_seed)
        network = network_of(model, width, norm, classes=2)
        super().__init__(train, queries, network, override(RECIPE, recipe), flip_labels, flip_seed)


def cats_and_dogs(arrays: Arrays) -> Arrays:
    """Return the images of two of the ten classes, which become 0 and 1."""
    found: Arrays = {}
    for suffix in ("", "_test"):
        if f"x{suffix}" in arrays:
            labels: NDArray[np.int64] = arrays[f"y{suffix}"]
            chosen = np.flatnonzero((labels == CATS) | (labels == DOGS))
            found[f"x{suffix}"] = arrays[f"x{suffix}"][chosen]
            found[f"y{suffix}"] = (labels[chosen] == DOGS).astype(np.int64)
    return found
