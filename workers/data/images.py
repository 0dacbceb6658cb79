"""Image data sets, from an .npz or from torchvision's copy."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.data.shared import Arrays, existing, shared
from workers.errors import DataError

FOLDER = Path.home() / ".cache" / "counterfactory"
"""Where torchvision's data sets are looked for when no path is given."""


def mnist(path: str | Path | None = None, download: bool = False) -> Arrays:
    """Return MNIST: `x` (m, 28, 28) uint8, `y` (m,) int64, and `x_test`, `y_test` where the source has a test set.

    `path` is an .npz with `x` and `y` (and perhaps `x_test`, `y_test`), or a torchvision root folder; None is FOLDER.
    Raises DataError when there is nothing there, unless `download`.
    """
    return _images("mnist", "MNIST", (28, 28), path, download)


def cifar10(path: str | Path | None = None, download: bool = False) -> Arrays:
    """Return CIFAR-10: `x` (m, 32, 32, 3) uint8, `y` (m,) int64, and `x_test`, `y_test` where there is a test set.

    `path` is an .npz with `x` and `y`, an .npz of JPEG bytes (`train_jpeg`, `train_offset`, `y_train` and the same for
    `test`: image i is jpeg[offset[i]:offset[i + 1]]), or a torchvision root folder; None is FOLDER.
    Raises DataError when there is nothing there, unless `download`.
    """
    return _images("cifar10", "CIFAR10", (32, 32, 3), path, download)


def _images(name: str, kind: str, shape: tuple[int, ...], path: str | Path | None, download: bool) -> Arrays:
    """Load an image data set from an .npz or from torchvision's copy, and check its shapes."""
    where = FOLDER if path is None else Path(path)

    def load() -> Arrays:
        arrays = _from_npz(where) if where.suffix == ".npz" else _from_torchvision(kind, where, download)
        for x, y in (("x", "y"), ("x_test", "y_test")):
            if x in arrays:
                arrays[y] = arrays[y].reshape(-1).astype(np.int64)
                _check_images(where, arrays[x], arrays[y], x, shape)
        return arrays

    return shared(f"{name}:{where.absolute()}", load)


def _check_images(where: Path, x: NDArray[Any], y: NDArray[Any], name: str, shape: tuple[int, ...]) -> None:
    if x.dtype != np.uint8 or x.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise DataError(f"{where}: {name} is {x.dtype} {x.shape}, expected uint8 images of shape (m, {expected})")
    if len(y) != len(x) or len(y) == 0 or y.min() < 0 or y.max() > 9:
        raise DataError(f"{where}: the labels of {name} must be {len(x)} numbers from 0 to 9, found {len(y)} of them")


def _from_npz(path: Path) -> Arrays:
    there = existing(path)
    try:
        with there.open("rb") as file, np.load(file, allow_pickle=False) as archive:  # NumPy leaves a broken one open
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile's, zlib's, NumPy's or its header's tokenizer's: damage has many
        raise DataError(f"{path} cannot be read as an .npz of arrays: {_one_line(error)}") from error
    if "train_jpeg" in arrays:
        return _from_jpeg(path, arrays)
    pairs = [(x, y) for x, y in (("x", "y"), ("x_test", "y_test")) if x in arrays and y in arrays]
    if ("x", "y") not in pairs:
        raise DataError(f"{path}: expected arrays `x` and `y`, found {', '.join(arrays) or 'none'}")
    return {name: arrays[name] for pair in pairs for name in pair}


def _from_jpeg(path: Path, arrays: Arrays) -> Arrays:
    made: Arrays = {}
    for split, x, y in (("train", "x", "y"), ("test", "x_test", "y_test")):
        lacking = {f"{split}_jpeg", f"{split}_offset", f"y_{split}"} - arrays.keys()
        if lacking:
            raise DataError(f"{path}: a file of JPEG images lacks {', '.join(sorted(lacking))}")
        try:
            made[x] = _decode(arrays[f"{split}_jpeg"].tobytes(), arrays[f"{split}_offset"])
        except Exception as error:  # Pillow raises many, SyntaxError among them
            raise DataError(
                f"{path}: {split}_jpeg and {split}_offset cannot be read as JPEG images: {_one_line(error)}"
            ) from error
        made[y] = arrays[f"y_{split}"]
    return made


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _decode(jpeg: bytes, offset: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the images jpeg[offset[i]:offset[i + 1]] as (m, h, w, 3) uint8."""
    from PIL import Image

    spans = [jpeg[start:end] for start, end in pairwise(offset)]
    return np.stack([np.asarray(Image.open(io.BytesIO(span)).convert("RGB")) for span in spans])


def _from_torchvision(kind: str, root: Path, download: bool) -> Arrays:
    from torchvision import datasets

    dataset = getattr(datasets, kind)
    try:
        train, test = (dataset(root, train=is_train, download=download) for is_train in (True, False))
    except RuntimeError as error:
        raise DataError(
            f"torchvision's {kind} is not in the folder {root}: set `path` to the folder that holds it or to an .npz, "
            "or set `download: true`"
        ) from error
    arrays = {"x": train.data, "y": train.targets, "x_test": test.data, "y_test": test.targets}
    return {name: np.asarray(values) for name, values in arrays.items()}
