"""Which examples are for training and which are queries, and noise on the labels of the former."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.errors import ConfigError


def order(total: int, seed: int | None) -> NDArray[np.int64]:
    """Return the permutation of 0..total-1 that `seed` draws; None keeps the order."""
    return np.arange(total) if seed is None else np.random.default_rng(seed).permutation(total)


def split(
    total: int, n: int | None, t: int | None, seed: int | None, test_fraction: float = 0.2
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the training examples (n,) and of the queries (t,) in a pool of `total` examples.

    They are the first n and the next t of `order(total, seed)`. `t` None is `test_fraction` of the pool, `n` None all
    the rest. Raises ConfigError when the pool is too small.
    """
    t = max(1, round(total * test_fraction)) if t is None else t
    n = total - t if n is None else n
    if n < 1 or n + t > total:
        raise ConfigError(f"n = {n} training examples and t = {t} queries do not fit into {total} examples")
    positions = order(total, seed)
    return positions[:n], positions[n : n + t]


def flip_labels(
    labels: NDArray[np.int64], classes: int, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return labels (n,) of which round(fraction * n) were changed to another class, uniformly, and which ones (n,)."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(labels), size=round(fraction * len(labels)), replace=False)
    flipped = np.zeros(len(labels), dtype=bool)
    flipped[chosen] = True
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + rng.integers(1, classes, size=len(chosen))) % classes
    return noisy, flipped


def encode(values: NDArray[Any]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of the distinct values, in ascending order, and each value's place among them."""
    names, codes = np.unique(values, return_inverse=True)
    return tuple(str(name) for name in names), codes.astype(np.int64)


def class_told(classes: Sequence[str], given: int, true: int) -> str:
    """Return the name of an example's class; where the label was changed, of both."""
    return classes[given] if given == true else f"{classes[given]} (flipped from {classes[true]})"
