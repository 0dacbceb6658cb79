"""Data sets as NumPy arrays, loaded once a process and shared read-only.

The driver builds the task first, so that `loaded()` holds every array it needed; what `provide()` puts in place on a
worker is used instead of the file. Keys name the data set and the absolute path it came from.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from workers.errors import ConfigError, DataError, near

Arrays = dict[str, NDArray[Any]]

FOLDER = Path.home() / ".cache" / "counterfactory"
"""Where torchvision's data sets are looked for when no path is given."""
BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
"""Data sets that ship inside scikit-learn."""

_cache: dict[str, Arrays] = {}  # filled by cached() and provide() only; a key's arrays never change


def cached(key: str, load: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of `key`, read-only, calling `load` the first time this process asks for them."""
    if key not in _cache:
        provide({key: load()})
    return _cache[key]


def loaded() -> dict[str, Arrays]:
    """Return everything loaded in this process so far, by key: what the driver hands to the workers."""
    return dict(_cache)


def provide(arrays_by_key: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
    """Use these arrays for their keys from now on, without copying them; a key that is already there stays as it is."""
    for key, arrays in arrays_by_key.items():
        _cache.setdefault(key, {name: _read_only(array) for name, array in arrays.items()})


def to_tensor(array: NDArray[Any], dtype: DTypeLike) -> torch.Tensor:
    """Return a tensor of `dtype` that may be written to: it shares `array`'s memory only when that is writable too.

    Shared arrays are read-only, and PyTorch has no read-only tensors; the copy is the same one that a conversion makes.
    """
    return torch.from_numpy(array.astype(dtype, order="C", copy=not array.flags.writeable))


def digits() -> Arrays:
    """Return scikit-learn's digits: `x` (1797, 8, 8) float64 in [0, 16], `y` (1797,) int64."""
    arrays = bundled("digits")
    return {"x": arrays["x"].reshape(-1, 8, 8), "y": arrays["y"]}


def bundled(name: str) -> Arrays:
    """Return a data set of scikit-learn's: `x` (m, d) float64, `y` (m,), `columns` (d,), `classes` (empty: regression).

    Raises ConfigError for a name that is not in BUNDLED.
    """
    if name not in BUNDLED:
        raise ConfigError(f"unknown data set {name!r}: {near(name, list(BUNDLED))}")

    def load() -> Arrays:
        from sklearn import datasets

        bunch = getattr(datasets, f"load_{name}")()
        classes = np.asarray(bunch.get("target_names", []), dtype=str)
        return {"x": bunch.data, "y": bunch.target, "columns": np.asarray(bunch.feature_names, str), "classes": classes}

    return cached(f"sklearn:{name}", load)


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


def table(path: str | Path) -> Arrays:
    """Return a CSV, TSV (either perhaps .gz) or Parquet file as one array a column, in the file's order of columns.

    Booleans stay bool, whole numbers become int64 and others float64 (missing: NaN); every other column is an object
    array of str, with None where a value is missing. The header tells the delimiter (comma, tab, semicolon, bar).
    """
    return cached(f"table:{Path(path).absolute()}", lambda: _read_table(_existing(path)))


def text(path: str | Path) -> str:
    """Return a text file (UTF-8, perhaps .gz) as one string."""

    def load() -> Arrays:
        raw = _existing(path).read_bytes()
        try:
            raw = gzip.decompress(raw) if _is_gz(path) else raw
            raw.decode()
        except (UnicodeDecodeError, OSError, EOFError) as error:
            raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error
        return {"utf8": np.frombuffer(raw, dtype=np.uint8)}

    return cached(f"text:{Path(path).absolute()}", load)["utf8"].tobytes().decode()


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise DataError(
            f"there is no file {path}; data is looked for beside the configuration, "
            "in $COUNTERFACTORY_DATA, ./data and ../shared/data"
        )
    return Path(path)


def _is_gz(path: str | Path) -> bool:
    return Path(path).suffix == ".gz"


def _read_table(path: Path) -> Arrays:
    import pandas as pd

    kind = path.with_suffix("").suffix if _is_gz(path) else path.suffix
    try:
        if kind in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
        elif kind in (".csv", ".tsv", ".txt"):
            frame = pd.read_csv(path, sep=_delimiter(path))
        else:
            raise DataError(f"{path}: unknown kind of table {kind!r}, expected .csv, .tsv, .txt (or .gz) or .parquet")
    except (ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as a table: {(str(error).splitlines() or [''])[0]}") from error
    return {str(name): _column(frame[name]) for name in frame.columns}


def _delimiter(path: Path) -> str:
    """Return the delimiter that splits the header line into the most names."""
    with gzip.open(path, "rt") if _is_gz(path) else path.open() as lines:
        header = lines.readline()
    return max(",\t;|", key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def _column(series: Any) -> NDArray[Any]:
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    if not series.hasnans and (is_bool_dtype(series) or is_integer_dtype(series)):
        return np.asarray(series.to_numpy(dtype=bool if is_bool_dtype(series) else np.int64))
    if is_numeric_dtype(series):
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    values = np.empty(len(series), dtype=object)
    values[:] = [None if missing else str(value) for value, missing in zip(series, series.isna(), strict=True)]
    return values


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

    return cached(f"{name}:{where.absolute()}", load)


def _check_images(where: Path, x: NDArray[Any], y: NDArray[Any], name: str, shape: tuple[int, ...]) -> None:
    if x.dtype != np.uint8 or x.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise DataError(f"{where}: {name} is {x.dtype} {x.shape}, expected uint8 images of shape (m, {expected})")
    if len(y) != len(x) or len(y) == 0 or y.min() < 0 or y.max() > 9:
        raise DataError(f"{where}: the labels of {name} must be {len(x)} numbers from 0 to 9, found {len(y)} of them")


def _from_npz(path: Path) -> Arrays:
    try:
        with np.load(_existing(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except DataError:
        raise
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an .npz of arrays: {error}") from error
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
        made[x] = _decode(arrays[f"{split}_jpeg"].tobytes(), arrays[f"{split}_offset"])
        made[y] = arrays[f"y_{split}"]
    return made


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
