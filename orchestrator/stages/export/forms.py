"""How masks (m, n) are written: as they are, as the examples kept, as bits; and which files arrays become."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.durable import folder_at_once
from workers.errors import ConfigError, StoreError

Save = Callable[[Path, NDArray[Any]], None]
"""Writes an array under a name, to which it adds its ending."""
Form = Callable[[Path, NDArray[np.bool_], Save], None]
"""Writes masks (m, n) into a folder. Raises ConfigError for masks that it cannot hold."""


def npy(path: Path, array: NDArray[Any]) -> None:
    """Write a .npy file."""
    np.save(path.with_name(f"{path.name}.npy"), array, allow_pickle=False)


def tensor(path: Path, array: NDArray[Any]) -> None:
    """Write a .pt file that holds a tensor."""
    import torch  # looking at a sweep must not wait for it

    torch.save(torch.from_numpy(np.ascontiguousarray(array)), path.with_name(f"{path.name}.pt"))


def pickled(path: Path, array: NDArray[Any]) -> None:
    """Write a .pt file that holds a NumPy array, as kronfluence's examples have it."""
    import torch

    torch.save(array, path.with_name(f"{path.name}.pt"))


def dense(folder: Path, masks: NDArray[np.bool_], save: Save) -> None:
    """Write `masks`, (m, n) bool."""
    save(folder / "masks", masks)


def int8(folder: Path, masks: NDArray[np.bool_], save: Save) -> None:
    """Write `masks`, (m, n) int8."""
    save(folder / "masks", masks.astype(np.int8))


def indices(folder: Path, masks: NDArray[np.bool_], save: Save) -> None:
    """Write `kept_indices`, (m, k) int64, and n beside them."""
    save(folder / "kept_indices", kept_indices(masks))
    _say(folder / "kept_indices.json", n=masks.shape[1])


def packed(folder: Path, masks: NDArray[np.bool_], save: Save) -> None:
    """Write `packed_masks`, (m, ceil(n / 8)) uint8, the first example in a byte's highest bit, and n beside them."""
    save(folder / "packed_masks", np.packbits(masks, axis=1))
    _say(folder / "packed_masks.json", n=masks.shape[1], bitorder="big")


def kept_indices(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the examples of each subset, (m, k), ascending. Raises ConfigError unless all subsets have as many."""
    sizes = np.unique(masks.sum(axis=1))
    if len(sizes) > 1:
        raise ConfigError(
            f"its subsets have {sizes[0]} to {sizes[-1]} examples, and kept indices are one rectangle: write masks, or name "
            "another design with --design"
        )
    return np.nonzero(masks)[1].reshape(len(masks), -1).astype(np.int64)


def _say(path: Path, **about: Any) -> None:
    path.write_text(json.dumps(about) + "\n", encoding="utf-8")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill, which takes the place of `target` when all is written. Raises StoreError for one that is used."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(f"--to {target}: exists already; choose another folder")
    with folder_at_once(target.resolve()) as folder:  # where it is, is the user's own choice
        folder.mkdir()
        yield folder
