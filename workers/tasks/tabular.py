"""Regression or classification of a table (CSV, TSV, Parquet) by an MLP."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from workers import measures
from workers.data.examples import Batch
from workers.data.shared import to_tensor
from workers.recipe import Recipe
from workers.task import Classification, DifferentiableTask, Regression
from workers.tasks import arguments, tables
from workers.tasks.arguments import RecipeArgument, checked, override
from workers.tasks.networks import mlp
from workers.tasks.splits import split
from workers.tasks.tables import Table

RECIPE = Recipe(lr=0.03, weight_decay=1e-5, batch_size=32, epochs=20)
"""What SOURCE (Bae et al. 2024) trains on UCI's Concrete."""


@checked
def tabular(
    path: arguments.TablePath,
    target: arguments.Target = None,
    kind: Annotated[
        Literal["regression", "classification"] | None,
        Field(description="what the target is; null is a regression, refused where the target looks like classes"),
    ] = None,
    drop: arguments.Drop = None,
    group: arguments.Group = None,
    n: arguments.Count | None = None,
    t: arguments.QueryCount | None = None,
    test_fraction: arguments.TestFraction = 0.2,
    split_seed: arguments.SplitSeed = 0,
    standardize: Annotated[bool, Field(description="bring numeric features to mean 0 and variance 1")] = True,
    standardize_target: Annotated[
        bool, Field(description="bring the target of a regression to mean 0 and variance 1")
    ] = True,
    hidden: Annotated[
        list[PositiveInt] | None, Field(description="widths of the hidden layers; null is [128, 128, 128]")
    ] = None,
    dropout: arguments.Dropout = 0.0,
    recipe: RecipeArgument = None,
) -> DifferentiableTask:
    """The task of predicting the column `target` (the last one by default) from the others.

    It is a regression unless `kind` says otherwise; where the target looks like classes, `kind` must say which is meant.
    Text columns become one-hot features. `standardize` brings numeric features, and `standardize_target` the target of
    a regression, to mean 0 and variance 1 over the n training examples; outputs are then in those units. `group`
    names a column to group examples by (leave_group_out), which is no feature. `hidden` is [128, 128, 128] by default.
    """
    table = tables.read(path, target, drop or [], group)
    if kind is None:
        tables.refuse_classes(table)
    train, queries = split(len(table.x), n, t, split_seed, test_fraction)
    widths = [128, 128, 128] if hidden is None else hidden
    setting = _Setting(table, train, queries, standardize, widths, dropout, override(RECIPE, recipe))
    return (
        TabularClassification(setting) if kind == "classification" else TabularRegression(setting, standardize_target)
    )


@dataclass(frozen=True)
class _Setting:
    """What both kinds are made of."""

    table: Table
    train: NDArray[np.int64]
    queries: NDArray[np.int64]
    standardize: bool
    hidden: list[int]
    dropout: float
    recipe: Recipe


class _Tabular(DifferentiableTask):
    """Features, network and hooks of both kinds; a kind adds its targets."""

    kind: str
    outputs: int

    def __init__(self, setting: _Setting):
        self._setting = setting
        self.recipe = setting.recipe
        table, train = setting.table, setting.train
        x = standardized(table.x, train, table.numeric) if setting.standardize else table.x
        self.train_inputs = to_tensor(x[train], np.float32)
        self.query_inputs = to_tensor(x[setting.queries], np.float32)

    def _set_targets(self, targets: NDArray[np.float32] | NDArray[np.int64]) -> None:
        self.train_targets = to_tensor(targets[self._setting.train], targets.dtype)
        self.query_targets = to_tensor(targets[self._setting.queries], targets.dtype)

    def read_queries(self, path: Path) -> Batch:
        """Return the rows of another table (CSV, TSV, Parquet) with the same columns, brought to the training rows' scale.

        Raises DataError for a table with other columns or with categories that are not known.
        """
        setting = self._setting
        found = tables.more(setting.table, path)
        x = self._scaled(setting.table.x, found.x, setting.table.numeric) if setting.standardize else found.x
        return Batch(to_tensor(x, np.float32), self._targets_of(found, path))

    def _scaled(
        self, known: NDArray[np.float64], more: NDArray[np.float64], columns: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Return more rows on the scale that the training rows among the known ones have."""
        return standardized(np.concatenate([known, more]), self._setting.train, columns)[len(known) :]

    @abstractmethod
    def _targets_of(self, found: Table, path: Path) -> Tensor:
        """Return the targets of other rows, (q,)."""

    def module(self) -> nn.Module:
        """Return a new MLP."""
        return mlp(self._setting.table.x.shape[1], self._setting.hidden, self.outputs, self._setting.dropout)

    def elsewhere(self, measure: str) -> str:
        """Return that the other kind of the same table has a measure."""
        kinds = {"classification": measures.CLASSIFICATION, "regression": measures.REGRESSION}
        other = next((kind for kind, known in kinds.items() if measure in known and kind != self.kind), None)
        taken = f"; the target of {self._setting.table.title} was taken for a {self.kind}'s"
        return "" if other is None else f"{taken}, and a {other} has it: say kind: {other}"

    def groups(self) -> Mapping[str, NDArray[np.int64]]:
        """Return the groups of the base class, and those of the `group` column."""
        ours = {name: ids[self._setting.train] for name, ids in self._setting.table.groups.items()}
        return {**super().groups(), **ours}

    def _row(self, source: str, index: int) -> int:
        return int((self._setting.train if source == "train" else self._setting.queries)[index])

    def show(self, source: str, index: int) -> str:
        """Return the features in words, in the table's own units."""
        return self._setting.table.row(self._row(source, index))

    def label(self, source: str, index: int) -> str:
        """Return the target in the table's own units."""
        value = self._setting.table.target[self._row(source, index)]
        return f"{value:g}" if isinstance(value, np.number) else str(value)

    def describe(self) -> str:
        """Return the task in one line."""
        widths = "-".join(map(str, [self._setting.table.x.shape[1], *self._setting.hidden, self.outputs]))
        title = f"{self._setting.table.title} ({self.kind})"
        taken = self._setting.table.categorical
        categories = f", columns taken for categories: {', '.join(taken)}" if taken else ""
        return f"{title}: {self.n:,} training examples, {self.t:,} queries, MLP {widths}{categories}"


class TabularRegression(_Tabular, Regression):
    """A table's regression task."""

    kind = "regression"
    outputs = 1

    def __init__(self, setting: _Setting, standardize_target: bool):
        super().__init__(setting)
        targets = tables.numeric_target(setting.table)
        if standardize_target:
            targets = standardized(targets[:, None], setting.train)[:, 0]
        self._set_targets(targets.astype(np.float32))
        self._standardize_target = standardize_target

    def _targets_of(self, found: Table, path: Path) -> Tensor:
        values = tables.numeric_target(found)
        if self._standardize_target:
            values = self._scaled(tables.numeric_target(self._setting.table)[:, None], values[:, None])[:, 0]
        return to_tensor(values, np.float32)


class TabularClassification(_Tabular, Classification):
    """A table's classification task."""

    kind = "classification"

    def __init__(self, setting: _Setting):
        super().__init__(setting)
        self._classes, codes = tables.class_target(setting.table)
        self.outputs = len(self._classes)
        self._set_targets(codes)

    def _targets_of(self, found: Table, path: Path) -> Tensor:
        return to_tensor(tables.codes_of(path, found.target, self._classes), np.int64)


def standardized(
    x: NDArray[np.float64], train: NDArray[np.int64], columns: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return x (m, d) with the chosen columns brought to mean 0 and variance 1 over the rows `train`.

    A column that is constant over those rows is only centred.
    """
    mean, std = x[train].mean(axis=0), x[train].std(axis=0)
    std = np.where(std > 0, std, 1.0)
    if columns is not None:
        mean, std = np.where(columns, mean, 0.0), np.where(columns, std, 1.0)
    return np.asarray((x - mean) / std)
