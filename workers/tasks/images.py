"""What the image classification tasks share: pixels to tensors, label noise, and the hooks of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.data.examples import Batch
from workers.data.new_queries import read_npz
from workers.data.shared import Arrays, to_tensor
from workers.errors import ConfigError, DataError
from workers.recipe import Recipe
from workers.task import Classification
from workers.tasks.splits import class_told, flip_labels, order, split


@dataclass(frozen=True)
class Images:
    """A choice of images of a pool; the pool itself may be shared and is never copied whole."""

    pool: NDArray[Any]
    """(m, h, w) or (m, h, w, 3)."""
    pool_labels: NDArray[np.int64]
    """(m,)."""
    where: NDArray[np.int64]
    """(k,) positions in the pool."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels of the chosen images, (k,)."""
        return self.pool_labels[self.where]


def choose(arrays: Arrays, n: int, t: int, split_seed: int | None) -> tuple[Images, Images]:
    """Return n training images and t queries: from the test set where there is one, else next in the pool."""
    x, y = arrays["x"], arrays["y"]
    if "x_test" not in arrays:
        train, queries = split(len(x), n, t, split_seed)
        return Images(x, y, train), Images(x, y, queries)
    x_test, y_test = arrays["x_test"], arrays["y_test"]
    for name, wanted, total in (("n", n, len(x)), ("t", t, len(x_test))):
        if wanted > total:
            raise ConfigError(f"{name} = {wanted} is more than the {total} images there are")
    return Images(x, y, order(len(x), split_seed)[:n]), Images(x_test, y_test, order(len(x_test), split_seed)[:t])


@dataclass(frozen=True)
class Network:
    """A network to train: how to make one, and what to call it."""

    make: Callable[[], nn.Module]
    name: str


class ImageTask(Classification):
    """Images of some classes as (n, c, h, w) float32, standardized by fixed constants a channel."""

    title: ClassVar[str]
    white: ClassVar[float] = 255.0
    """Pixel value that becomes 1 before standardization."""
    mean: ClassVar[tuple[float, ...]] = (0.0,)
    std: ClassVar[tuple[float, ...]] = (1.0,)
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")

    flipped: NDArray[np.bool_]
    """(n,) which training labels were changed on purpose."""

    def __init__(
        self, train: Images, queries: Images, network: Network, recipe: Recipe, flip_fraction: float, flip_seed: int
    ):
        self._images = {"train": train, "task": queries}
        self._network = network
        self.recipe = recipe
        labels, self.flipped = flip_labels(train.labels, len(self.classes), flip_fraction, flip_seed)
        self.train_inputs, self.train_targets = self._pixels(train), to_tensor(labels, np.int64)
        self.query_inputs, self.query_targets = self._pixels(queries), to_tensor(queries.labels, np.int64)

    def _pixels(self, images: Images) -> Tensor:
        pixels = to_tensor(images.pool[images.where], np.float32)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        mean, std = (pixels.new_tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.std))
        return ((pixels / self.white - mean) / std).contiguous()

    def module(self) -> nn.Module:
        """Return a new network."""
        return self._network.make()

    def read_queries(self, path: Path) -> Batch:
        """Return the images `x` (q, h, w) or (q, h, w, 3) and the labels `y` (q,) of an .npz, as this task's own are.

        Pixels are on its scale before standardization, classes numbered as its are. Raises DataError for anything else.
        """
        arrays, pool = read_npz(path, ["x", "y"]), self._images["task"].pool
        x, y = arrays["x"], arrays["y"].reshape(-1)
        if x.dtype.kind not in "uif" or x.shape[1:] != pool.shape[1:]:
            expected = ", ".join(map(str, pool.shape[1:]))
            raise DataError(f"{path}: x is {x.dtype} {x.shape}, expected images of shape (q, {expected})")
        last = len(self.classes) - 1
        if len(y) != len(x) or len(y) == 0 or y.dtype.kind not in "ui" or y.min() < 0 or y.max() > last:
            raise DataError(
                f"{path}: y must be {len(x)} classes from 0 to {last}, at least one, found {y.dtype} {y.shape}"
            )
        return Batch(self._pixels(Images(x, y, np.arange(len(x)))), to_tensor(y, np.int64))

    def show(self, source: str, index: int) -> NDArray[np.uint8]:
        """Return the image as it was before standardization: (h, w) or (h, w, 3) uint8."""
        images = self._images[source]
        pixels = images.pool[images.where[index]] * (255 / self.white)
        return np.asarray(pixels.round(), dtype=np.uint8)

    def label(self, source: str, index: int) -> str:
        """Return the class name; of a flipped training label both."""
        targets = self.train_targets if source == "train" else self.query_targets
        return class_told(self.classes, int(targets[index]), int(self._images[source].labels[index]))

    def describe(self) -> str:
        """Return the task in one line."""
        noise = f", {int(self.flipped.sum()):,} labels flipped" if self.flipped.any() else ""
        return f"{self.title}: {self.n:,} training examples{noise}, {self.t:,} queries, {self._network.name}"
