"""A small GPT on documents: which of them made it expect others as it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from workers import measures
from workers.data import datasets
from workers.data.examples import Batch
from workers.data.tokens import FILL, Tokens, trained
from workers.errors import DataError
from workers.measures import Measure
from workers.recipe import Recipe
from workers.residuals import sampled_residuals
from workers.task import DifferentiableTask
from workers.tasks import arguments
from workers.tasks.arguments import RecipeArgument, check_heads, checked, override
from workers.tasks.networks import CausalTransformer
from workers.tasks.splits import split

RECIPE = Recipe(optimizer="adamw", lr=3e-3, weight_decay=0.01, schedule="one_cycle", batch_size=16, epochs=10)
NOTHING = -100
"""The target where a document has ended: PyTorch's own mark for what has no loss."""


class NextToken(DifferentiableTask):
    """What language models share: a causal transformer, and measures that are means over an example's tokens.

    Inputs are tokens (n, length) int64, targets the tokens to expect there (n, length). A subclass sets them, `_title`, `_known`
    (how many tokens there are) and `_size`.
    """

    _title: str
    _known: int
    _size: tuple[int, int, int, float, float]
    """Width, heads, layers, dropout, dropout in attention."""

    def module(self) -> nn.Module:
        """Return a new transformer."""
        return CausalTransformer(self._known, self.train_inputs.shape[1], *self._size)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy over each example's tokens, (b,), with the recipe's label smoothing."""
        return self._cross_entropy(outputs, targets, self.recipe.label_smoothing)

    def sampled_output_gradients(self, outputs: Tensor, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Return softmax(outputs) minus a token drawn from it, at every token by the root of its weight in the loss."""
        weights = self._mean(torch.eye(outputs.shape[1], dtype=outputs.dtype).unsqueeze(1), batch.targets.unsqueeze(0))
        found = sampled_residuals(outputs, rng) * weights.T.sqrt().unsqueeze(2)
        return found.flatten(1)

    def measurements(self) -> Mapping[str, Measure]:
        """Return loss (mean cross-entropy, nats a token) and margin (mean margin of the token that follows)."""
        return {"loss": self._cross_entropy, "margin": self._margin}

    def _cross_entropy(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return (b,) of (b, length, vocabulary) and (b, length)."""
        # One row a token: with the classes in the middle, a softmax walks through memory in strides.
        rows, wanted = outputs.flatten(0, -2), targets.flatten()
        losses = F.cross_entropy(rows, wanted, reduction="none", label_smoothing=label_smoothing)
        return self._mean(losses.reshape(targets.shape), targets)

    def _margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over tokens of log(p / (1 - p)) of the token that follows, (b,)."""
        return self._mean(measures.margin(outputs, targets.clamp(min=0)), targets)

    def _mean(self, values: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over tokens, (b,)."""
        return values.mean(-1)

    def show(self, source: str, index: int) -> str:
        """Return the example's text."""
        raise NotImplementedError

    def label(self, source: str, index: int) -> str:
        """Return the example's first words on one line."""
        words = " ".join(self.show(source, index).split())
        return words if len(words) <= 24 else f"{words[:23]}…"

    def _network(self) -> str:
        return f"{self._size[2]}-layer causal transformer of width {self._size[0]}"


class LanguageModel(NextToken):
    """Predict the next token of documents, each one example, by a GPT with dropout inside attention.

    A text file is divided into documents at every `separator`; blank ones are none. A document's tokens are expected one after
    the other, the first one from a token that stands for its beginning. Those beyond `length` are cut, and the documents that
    lose some counted. Loss and measures are means over a document's tokens. Tokens are characters (all of the file's), or those
    of a byte-level BPE that is trained on the n training documents (`pip install 'counterfactory[text]'`). The task `characters`
    is the same model on pieces of equal length instead of documents.
    """

    @checked
    def __init__(
        self,
        path: Annotated[str | Path, Field(description="a text file")],
        n: arguments.Count = 1000,
        t: arguments.QueryCount = 100,
        separator: Annotated[str, Field(min_length=1, description="what stands between two documents")] = "\n\n",
        tokens: Annotated[Literal["characters", "trained"], Field(description="what a token is")] = "trained",
        vocabulary: arguments.Vocabulary = 512,
        length: Annotated[PositiveInt, Field(description="tokens of a document, at most")] = 64,
        split_seed: arguments.SplitSeed = 0,
        width: arguments.Width = 64,
        heads: arguments.Heads = 4,
        layers: arguments.Layers = 2,
        dropout: arguments.Dropout = 0.1,
        attention_dropout: Annotated[
            arguments.Fraction, Field(description="dropout rate of attention's weights")
        ] = 0.1,
        recipe: RecipeArgument = None,
    ):
        check_heads(width, heads)
        self.recipe = override(RECIPE, recipe)
        self._title = Path(path).name.partition(".")[0]
        self._size = (width, heads, layers, dropout, attention_dropout)
        text = datasets.text(path)
        documents = _documents(text, separator)
        self._read = (separator, tokens, vocabulary, length, path)
        train, queries = split(len(documents), n, t, split_seed)
        self._texts: dict[str, list[str]] = {
            "train": [documents[i] for i in train],
            "task": [documents[i] for i in queries],
        }
        chosen = [*self._texts["train"], *self._texts["task"]]
        found = _characters(chosen, text) if tokens == "characters" else trained(chosen, chosen[:n], vocabulary)
        self._known, self._cut = found.vocabulary, int((found.lengths > length).sum())
        rows = np.arange(len(chosen))
        self.train_inputs, self.train_targets = _examples(found, rows[:n], length)
        self.query_inputs, self.query_targets = _examples(found, rows[n:], length)

    def read_queries(self, path: Path) -> Batch:
        """Return the documents of another text file, divided as this task's are.

        Raises DataError for a file without documents, and for characters that are not known.
        """
        separator, kind, vocabulary, length, own = self._read
        documents = _documents(datasets.text(path), separator)
        if not documents:
            raise DataError(f"{path}: holds no document")
        if kind == "trained":
            found = trained(documents, self._texts["train"], vocabulary)
        else:
            whole = datasets.text(own)
            if strange := sorted({*"".join(documents)} - {*whole}):
                raise DataError(f"{path}: the character {strange[0]!r} is not known")
            found = _characters(documents, whole)
        return Batch(*_examples(found, np.arange(len(documents)), length))

    def _mean(self, values: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the tokens that are there, (b,)."""
        there = targets != NOTHING
        return (values * there).sum(-1) / there.sum(-1)

    def show(self, source: str, index: int) -> str:
        """Return the document, whole."""
        return self._texts[source][index]

    def describe(self) -> str:
        """Return the task in one line."""
        cut = f"{self._cut:,} of them cut to {self.train_inputs.shape[1]} of {self._known:,} known tokens"
        return f"{self._title}: {self.n:,} training and {self.t:,} query documents, {cut}, {self._network()}"


def _documents(text: str, separator: str) -> list[str]:
    return [part for part in text.split(separator) if part.strip()]


def _characters(texts: Sequence[str], whole: str) -> Tokens:
    """Return the characters of texts as tokens; every character of `whole` is one."""
    known = {character: code for code, character in enumerate(sorted(set(whole)), start=FILL + 1)}
    ids = np.array([known[character] for text in texts for character in text], dtype=np.int64)
    return Tokens(ids, np.cumsum([0, *map(len, texts)]), len(known) + 1)


def _examples(tokens: Tokens, rows: NDArray[np.int64], length: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of the documents at these positions, (k, length) each: a target's input is what precedes it."""
    inputs = np.roll(tokens.padded(rows, length), 1, axis=1)
    inputs[:, 0] = FILL
    return torch.from_numpy(inputs), torch.from_numpy(tokens.padded(rows, length, fill=NOTHING))
