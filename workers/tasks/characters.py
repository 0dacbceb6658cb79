"""A small character language model: which pieces of text made it predict others as it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from workers.data import datasets
from workers.tasks import arguments
from workers.tasks.arguments import RecipeArgument, check_heads, checked, override
from workers.tasks.language_model import RECIPE, NextToken
from workers.tasks.splits import encode, split


class Characters(NextToken):
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
        self._size = (width, heads, layers, dropout, 0.0)
        self.vocabulary, tokens = encode(np.array(list(datasets.text(path))))
        self._known = len(self.vocabulary)
        train, queries = split((len(tokens) - 1) // length, n, t, split_seed)
        inputs, targets = _chunks(tokens[:-1], length), _chunks(tokens[1:], length)
        self.train_inputs, self.train_targets = torch.from_numpy(inputs[train]), torch.from_numpy(targets[train])
        self.query_inputs, self.query_targets = torch.from_numpy(inputs[queries]), torch.from_numpy(targets[queries])

    def show(self, source: str, index: int) -> str:
        """Return the chunk's text."""
        tokens = (self.train_inputs if source == "train" else self.query_inputs)[index]
        return "".join(self.vocabulary[token] for token in tokens.tolist())

    def describe(self) -> str:
        """Return the task in one line."""
        chunks = f"{self.n:,} training and {self.t:,} query chunks of {self.train_inputs.shape[1]} characters"
        return f"{self._title}: {chunks}, {self._network()}"


def _chunks(tokens: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Cut (m,) into (m // length, length)."""
    count = len(tokens) // length
    return tokens[: count * length].reshape(count, length)
