"""A table as features and a target: what the tabular and the scikit-learn task share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.data import datasets, tables
from workers.errors import ConfigError, DataError, near
from workers.tasks.splits import encode

FEW, REPEATED = 10, 5
"""A target of at most so many whole numbers, each that often on average, looks like classes."""


@dataclass(frozen=True)
class Table:
    """A table ready to learn from; categorical columns are one-hot, with the categories of the whole table."""

    title: str
    columns: tuple[str, ...]
    """(d,) names of the features; `column=category` for a one-hot one."""
    x: NDArray[np.float64]
    """(m, d), finite."""
    numeric: NDArray[np.bool_]
    """(d,) False for one-hot and boolean features, which are not standardized."""
    target: NDArray[Any]
    """(m,) numbers or text."""
    groups: dict[str, NDArray[np.int64]]
    """Name -> (m,) group ids."""
    predicted: str = ""
    """The target's column."""

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the columns whose values are categories, in their order."""
        one_hot = (name for name, numeric in zip(self.columns, self.numeric, strict=True) if not numeric)
        return tuple(dict.fromkeys(name.partition("=")[0] for name in one_hot if "=" in name))

    def row(self, index: int) -> str:
        """Return an example in words: numbers by name, and the categories it is in."""
        cells = zip(self.columns, self.x[index], self.numeric, strict=True)
        return ", ".join(f"{name}={value:g}" if numeric else name for name, value, numeric in cells if numeric or value)


def read(path: str | Path, target: str | None, drop: Sequence[str] = (), group: str | None = None) -> Table:
    """Read a table; `target` None is the last column, `drop` and `group` are not features.

    Raises ConfigError for a column that is not there, DataError for a missing or infinite value in one that is used.
    """
    columns = tables.table(path)
    named = [("drop", name) for name in drop] + [("group", group)] * (group is not None) + [("target", target)]
    for argument, name in named:
        if name is not None and name not in columns:
            raise ConfigError(f"{argument}: {path} has no column {name!r}: {near(name, list(columns))}")
    target = list(columns)[-1] if target is None else target
    for name, values in columns.items():
        if name not in drop:
            refuse_missing(path, name, values)
    unused = {target, group, *drop}
    features = [
        feature for name, values in columns.items() if name not in unused for feature in _features(name, values)
    ]
    if not features:
        raise ConfigError(f"{path}: no column is left as a feature beside the target {target!r}")
    names, arrays, numeric = zip(*features, strict=True)
    groups = {} if group is None else {group: encode(columns[group])[1]}
    title = Path(path).name.partition(".")[0]
    return Table(title, names, np.stack(arrays, axis=1), np.array(numeric), columns[target], groups, target)


def more(table: Table, path: str | Path) -> Table:
    """Read other rows of the same columns; columns that are no features of the table are passed over.

    Raises DataError for a column that is missing or of another kind, for a category that the table does not have, and as `read`
    does for missing values.
    """
    columns = tables.table(path)
    known = dict.fromkeys([*(name for name, _ in _sources(table)), table.predicted])
    if lacking := [name for name in known if name not in columns]:
        raise DataError(f"{path} has no column {lacking[0]!r}: {near(lacking[0], list(columns))}")
    for name in known:
        refuse_missing(path, name, columns[name])
    for name in table.categorical:
        categories = {value for column, value in _sources(table) if column == name}
        strange = [str(value) for value in columns[name] if str(value) not in categories]
        if strange:
            raise DataError(
                f"{path}: column {name!r} has {strange[0]!r}: {near(strange[0], sorted(map(str, categories)))}"
            )
    features = []
    for name, category in _sources(table):
        values = columns[name]
        if category is None and values.dtype == object:
            raise DataError(f"{path}: column {name!r} must be numbers, found {values[0]!r}")
        features.append(
            values.astype(np.float64) if category is None else (values.astype(str) == category).astype(float)
        )
    if (columns[table.predicted].dtype == object) != (table.target.dtype == object):
        expected = "text" if table.target.dtype == object else "numbers"
        raise DataError(f"{path}: column {table.predicted!r} must be {expected}, found {columns[table.predicted][0]}")
    return replace(table, x=np.stack(features, axis=1), target=columns[table.predicted], groups={})


def _sources(table: Table) -> list[tuple[str, str | None]]:
    """Return of every feature the column that it is made of, and the category that it indicates."""
    found: list[tuple[str, str | None]] = []
    for feature, numeric in zip(table.columns, table.numeric, strict=True):
        name, is_category, category = feature.partition("=")
        found.append((name, category) if is_category and not numeric else (feature, None))
    return found


def bundled(name: str) -> tuple[Table, tuple[str, ...]]:
    """Return a data set of scikit-learn's as a table, and its class names (none: regression)."""
    arrays = datasets.bundled(name)
    columns = tuple(str(column) for column in arrays["columns"])
    table = Table(name, columns, arrays["x"], np.ones(len(columns), dtype=bool), arrays["y"], {})
    return table, tuple(str(known) for known in arrays["classes"])


def with_target(table: Table, target: NDArray[Any]) -> Table:
    """Return the table with its target (m,) recoded."""
    return replace(table, target=target)


def refuse_classes(table: Table) -> None:
    """Raise ConfigError for a target that looks like classes, where nobody said what it is: text, or few whole numbers."""
    values = np.unique(table.target)
    if table.target.dtype == object:
        raise ConfigError(f"kind: the target of {table.title} is text, such as {values[0]!r}: say kind: classification")
    values = values.astype(np.float64)
    whole = bool((values == np.round(values)).all())
    if whole and len(values) <= FEW and len(table.target) >= REPEATED * len(values):
        listed = ", ".join(f"{value:g}" for value in values)
        raise ConfigError(
            f"kind: the target of {table.title} has {len(values)} values ({listed}): say kind: classification, "
            "or kind: regression if they are meant as numbers"
        )


def numeric_target(table: Table) -> NDArray[np.float64]:
    """Return the target as numbers. Raises DataError when it is not made of them."""
    if table.target.dtype == object:
        raise DataError(f"{table.title}: the target of a regression must be numbers, found {table.target[0]!r}")
    return table.target.astype(np.float64)


def class_target(table: Table) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return class names and class indices. Raises DataError when there is but one class."""
    return classes(table.title, table.target)


def classes(title: str, values: NDArray[Any]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the same of the values (m,) of a column."""
    names, codes = encode(values)
    if len(names) < 2:
        raise DataError(f"{title}: the target of a classification needs two classes, found only {names}")
    return names, codes


def codes_of(path: str | Path, values: NDArray[Any], known: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of every value (m,) among the known classes. Raises DataError for one that is not among them."""
    places = {name: place for place, name in enumerate(known)}
    strange = [str(value) for value in values if str(value) not in places]
    if strange:
        raise DataError(f"{path}: the class {strange[0]!r} is not known: {near(strange[0], list(known))}")
    return np.array([places[str(value)] for value in values], dtype=np.int64)


def _features(name: str, values: NDArray[Any]) -> list[tuple[str, NDArray[np.float64], bool]]:
    """Return the features made of one column: itself, or one indicator a category."""
    if values.dtype != object:
        return [(name, values.astype(np.float64), values.dtype != bool)]
    categories, codes = encode(values)
    return [(f"{name}={known}", (codes == code).astype(np.float64), False) for code, known in enumerate(categories)]


def refuse_missing(path: str | Path, name: str, values: NDArray[Any]) -> None:
    """Raise DataError for a missing or infinite value."""
    bad = [value is None for value in values] if values.dtype == object else ~np.isfinite(values)
    count = int(np.sum(bad))
    if count:
        raise DataError(
            f"{path}: column {name!r} has {count} missing or infinite values: drop it (drop: [...]) or fill them"
        )
