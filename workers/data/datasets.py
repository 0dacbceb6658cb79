"""Data sets that ship with scikit-learn, and text files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from workers.data.shared import Arrays, existing, is_gz, shared
from workers.errors import ConfigError, DataError, near

BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
"""Data sets that ship inside scikit-learn."""


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

    return shared(f"sklearn:{name}", load)


def text(path: str | Path) -> str:
    """Return a text file (UTF-8, perhaps .gz) as one string."""

    def load() -> Arrays:
        raw = existing(path).read_bytes()
        try:
            raw = gzip.decompress(raw) if is_gz(path) else raw
            raw.decode()
        except (UnicodeDecodeError, OSError, EOFError) as error:
            raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error
        return {"utf8": np.frombuffer(raw, dtype=np.uint8)}

    return shared(f"text:{Path(path).absolute()}", load)["utf8"].tobytes().decode()
