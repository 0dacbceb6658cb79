"""Classification of texts, a column of a table (CSV, TSV, Parquet), by a small transformer encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from workers.data import tables, tokens
from workers.data.examples import Batch
from workers.data.shared import to_tensor
from workers.errors import ConfigError, DataError, near
from workers.recipe import Recipe
from workers.task import Classification
from workers.tasks import arguments
from workers.tasks.arguments import RecipeArgument, check_heads, checked, override
from workers.tasks.networks import TextClassifier
from workers.tasks.splits import class_told, flip_labels, split
from workers.tasks.tables import classes, codes_of, refuse_missing

RECIPE = Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.01, schedule="one_cycle", batch_size=32, epochs=10)


class Text(Classification):
    """Predict the column `target` of a table from its column `text`, whose tokens an encoder averages.

    Inputs are a dictionary of `tokens` (n, length) int64 and `mask` (n, length) bool, True where there is a token. The
    tokenizer is a byte-level BPE, trained on the n training texts once, whatever subset a model sees; it needs
    `pip install 'counterfactory[text]'`. Longer texts are cut to `length` tokens, and counted. Dropout is inside attention too.
    """

    flipped: NDArray[np.bool_]
    """(n,) which training labels were changed on purpose."""

    @checked
    def __init__(
        self,
        path: arguments.TablePath,
        text: Annotated[str, Field(description="the column of texts")],
        target: arguments.Target = None,
        n: arguments.Count = 1000,
        t: arguments.QueryCount = 200,
        split_seed: arguments.SplitSeed = 0,
        length: Annotated[PositiveInt, Field(description="tokens of a text, at most")] = 64,
        vocabulary: arguments.Vocabulary = 2000,
        width: arguments.Width = 64,
        heads: arguments.Heads = 4,
        layers: arguments.Layers = 2,
        dropout: arguments.Dropout = 0.1,
        flip_labels: arguments.FlipLabels = 0.0,
        flip_seed: arguments.FlipSeed = 0,
        recipe: RecipeArgument = None,
    ):
        check_heads(width, heads)
        self.recipe = override(RECIPE, recipe)
        self._title = Path(path).name.partition(".")[0]
        target = list(tables.table(path))[-1] if target is None else target
        texts, values = _columns(path, text, target)
        self._classes, codes = _classes(path, target, values)
        train, queries = split(len(texts), n, t, split_seed)
        self._texts: dict[str, list[str]] = {
            "train": [texts[row] for row in train],
            "task": [texts[row] for row in queries],
        }
        self._true = {"train": codes[train], "task": codes[queries]}
        self._tokenize(length, vocabulary)
        self._columns, self._vocabulary = (text, target), vocabulary
        self._make = (self._tokens.vocabulary, length, len(self._classes), width, heads, layers, dropout)
        self._set_targets(flip_labels, flip_seed)

    def _tokenize(self, length: int, vocabulary: int) -> None:
        training, queries = self._texts["train"], self._texts["task"]
        self._tokens = tokens.trained([*training, *queries], training, vocabulary)
        self._cut = int((self._tokens.lengths > length).sum())
        everything = np.arange(len(training) + len(queries))
        self.train_inputs = self._inputs(everything[: len(training)], length)
        self.query_inputs = self._inputs(everything[len(training) :], length)

    def _inputs(self, texts: NDArray[np.int64], length: int) -> dict[str, Tensor]:
        return _masked(torch.from_numpy(self._tokens.padded(texts, length)))

    def _set_targets(self, fraction: float, seed: int) -> None:
        labels, self.flipped = flip_labels(self._true["train"], len(self._classes), fraction, seed)
        self.train_targets = to_tensor(labels, np.int64)
        self.query_targets = to_tensor(self._true["task"], np.int64)

    def read_queries(self, path: Path) -> Batch:
        """Return the texts and classes of another table (CSV, TSV, Parquet) with the same two columns.

        Raises DataError for a column that is missing, for an empty text and for a class that is not known.
        """
        text, target = self._columns
        lacking = [name for name in self._columns if name not in (columns := tables.table(path))]
        if lacking:
            raise DataError(f"{path} has no column {lacking[0]!r}: {near(lacking[0], list(columns))}")
        texts, values = _columns(path, text, target)
        found = tokens.trained(texts, self._texts["train"], self._vocabulary)
        padded = torch.from_numpy(found.padded(np.arange(len(texts)), self._make[1]))
        return Batch(_masked(padded), to_tensor(codes_of(path, values, self._classes), np.int64))

    def module(self) -> nn.Module:
        """Return a new encoder."""
        return TextClassifier(*self._make)

    def show(self, source: str, index: int) -> str:
        """Return the text, whole."""
        return self._texts[source][index]

    def label(self, source: str, index: int) -> str:
        """Return the class; of a flipped training label both."""
        targets = self.train_targets if source == "train" else self.query_targets
        return class_told(self._classes, int(targets[index]), int(self._true[source][index]))

    def describe(self) -> str:
        """Return the task in one line."""
        noise = f", {int(self.flipped.sum()):,} labels flipped" if self.flipped.any() else ""
        vocabulary, length, count, width, _, layers, _ = self._make
        texts = f"{self.n:,} training texts{noise}, {self.t:,} queries, {self._cut:,} of them cut to {length} tokens"
        network = f"{layers}-layer transformer of width {width}"
        return f"{self._title}: {texts}, {count} classes, {vocabulary:,} tokens known, {network}"


def _masked(padded: Tensor) -> dict[str, Tensor]:
    return {"tokens": padded, "mask": padded != tokens.FILL}


def _columns(path: str | Path, text: str, target: str) -> tuple[Sequence[str], NDArray[Any]]:
    """Return the texts (m), and the column of their classes (m,).

    Raises ConfigError for a column that is not there, DataError for one that does not hold what it should.
    """
    columns: dict[str, NDArray[Any]] = tables.table(path)
    for argument, name in (("text", text), ("target", target)):
        if name not in columns:
            raise ConfigError(f"{argument}: {path} has no column {name!r}: {near(name, list(columns))}")
        refuse_missing(path, name, columns[name])
    if text == target:
        raise ConfigError(f"target: {target!r} is the column of texts; name the column of classes")
    texts = columns[text]
    if texts.dtype != object:
        raise DataError(f"{path}: column {text!r} holds {texts.dtype} numbers, expected texts")
    blank = [row for row, one in enumerate(texts) if not one.strip()]
    if blank:
        raise DataError(f"{path}: column {text!r} has {len(blank)} empty texts, the first in row {blank[0] + 1}")
    return list(texts), columns[target]


def _classes(path: str | Path, target: str, values: NDArray[Any]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of the classes, and the class of every text (m,). Raises DataError where there are none."""
    names, codes = classes(str(path), values)
    if 2 * len(names) > len(values):
        raise DataError(
            f"{path}: column {target!r} has {len(names)} values in {len(values)} rows, expected classes that repeat"
        )
    return names, codes
