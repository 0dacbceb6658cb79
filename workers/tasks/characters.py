"""A small character language model: which pieces of text made it predict others as it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from workers import measures
from workers.data import datasets
from workers.measures import Measure
from workers.recipe import Recipe
from workers.task import DifferentiableTask
from workers.tasks import arguments
from workers.tasks.arguments import RecipeArgument, check_heads, checked, override
from workers.tasks.networks import CausalTransformer
from workers.tasks.splits import encode, split

RECIPE = Recipe(optimizer="adamw", lr=3e-3, weight_decay=0.01, schedule="one_cycle", batch_size=16, epochs=10)


class Characters(DifferentiableTask):
    """Predict the next character of chunks of a text file by a causal transformer.

    The text is cut into chunks of `length` tokens, one after the other; inputs are a chunk's tokens (n, length) int64,
    targets the tokens that follow them (n, length). The vocabulary is every character of the file. The loss and the
    measures are means over a chunk's tokens.
    """

    @checked
    def __init__(
        self,
        path: Annotated[str | Path, Field(description="a text file")],
        n: arguments.Count = 1000,
        t: arguments.QueryCount = 100,
        length: Annotated[PositiveInt, Field(description="tokens of a chunk, which is one example")] = 64,
        split_seed: arguments.SplitSeed = 0,
        width: arguments.Width = 64,
        heads: arguments.Heads = 4,
        layers: arguments.Layers = 2,
        dropout: arguments.Dropout = 0.0,
        recipe: RecipeArgument = None,
    ):
        check_heads(width, heads)
        self.recipe = override(RECIPE, recipe)
        self._title = Path(path).name.partition(".")[0]
        self._size = (width, heads, layers, dropout)
        self.vocabulary, tokens = encode(np.array(list(datasets.text(path))))
        train, queries = split((len(tokens) - 1) // length, n, t, split_seed)
        inputs, targets = _chunks(tokens[:-1], length), _chunks(tokens[1:], length)
        self.train_inputs, self.train_targets = torch.from_numpy(inputs[train]), torch.from_numpy(targets[train])
        self.query_inputs, self.query_targets = torch.from_numpy(inputs[queries]), torch.from_numpy(targets[queries])

    def module(self) -> nn.Module:
        """Return a new transformer."""
        return CausalTransformer(len(self.vocabulary), self.train_inputs.shape[1], *self._size)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy over each chunk's tokens, (b,), with the recipe's label smoothing."""
        return _cross_entropy(outputs, targets, self.recipe.label_smoothing)

    def measurements(self) -> Mapping[str, Measure]:
        """Return loss (mean cross-entropy, nats a token) and margin (mean margin of the token that follows)."""
        return {"loss": _cross_entropy, "margin": _margin}

    def show(self, source: str, index: int) -> str:
        """Return the chunk's text."""
        tokens = (self.train_inputs if source == "train" else self.query_inputs)[index]
        return "".join(self.vocabulary[token] for token in tokens.tolist())

    def label(self, source: str, index: int) -> str:
        """Return the chunk's first words on one line."""
        words = " ".join(self.show(source, index).split())
        return words if len(words) <= 24 else f"{words[:23]}…"

    def describe(self) -> str:
        """Return the task in one line."""
        width, _, layers, _ = self._size
        chunks = f"{self.n:,} training and {self.t:,} query chunks of {self.train_inputs.shape[1]} characters"
        return f"{self._title}: {chunks}, {layers}-layer causal transformer of width {width}"


def _chunks(tokens: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Cut (m,) into (m // length, length)."""
    count = len(tokens) // length
    return tokens[: count * length].reshape(count, length)


def _cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over tokens of the cross-entropy: (b, length, vocabulary), (b, length) -> (b,)."""
    losses = F.cross_entropy(outputs.transpose(-1, -2), targets, reduction="none", label_smoothing=label_smoothing)
    return losses.mean(-1)


def _margin(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over tokens of log(p / (1 - p)) of the token that follows."""
    return measures.margin(outputs, targets).mean(-1)
