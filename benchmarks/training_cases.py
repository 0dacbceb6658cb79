"""What benchmarks/training.py trains: the cases, their data, and the loop that one writes by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from workers import Classification, DifferentiableTask, Recipe, Run
from workers.data.nested import Nested, mapped
from workers.randomness.augmentation import augment
from workers.tasks import cifar10, language_model, text
from workers.tasks.language_model import NOTHING, NextToken
from workers.tasks.networks import CausalTransformer, TextClassifier, resnet9

TEXT_SIZE = (2000, 24)
SPEECH_SIZE = (512, 32)
"""Vocabulary and length of configs/sst2.yaml, and of configs/shakespeare.yaml."""


@dataclass(frozen=True)
class Case:
    """A task to train, and what one example's step costs."""

    recipe: Recipe
    module: Callable[[], nn.Module]
    data: str
    linear: tuple[int, ...] = ()
    """Widths of a chain of Linear layers, whose arithmetic is counted."""
    models: float = 1.0
    """Factor on the number of models in a round."""
    slower: float = 1.0
    """How many times fewer the other side trains in a round: it would keep us waiting."""

    def flops(self, examples: int, queries: int) -> int:
        """Multiplications and additions of one model on a subset and its queries; no gradient of the inputs is needed."""
        sizes = [a * b for a, b in pairwise(self.linear)]
        step = 2 * sizes[0] + 3 * sum(sizes[1:]) if sizes else 0
        return 2 * (step * examples * self.recipe.epochs + sum(sizes) * queries)


def chain(*widths: int, dropout: float = 0.0) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()] + [nn.Dropout(dropout)] * (dropout > 0)
    return nn.Sequential(*layers[: -2 if dropout else -1])


def layer_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 10))


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, 10),
    )  # fmt: skip


CIFAR = cifar10.RECIPE.model_copy(update={"lr": 0.2, "epochs": 1, "batch_size": 100})
CASES = {
    "logistic": Case(Recipe(lr=0.1, epochs=20), lambda: nn.Linear(64, 10), "digits", (64, 10), 16, 8),
    "mlp": Case(Recipe(lr=0.1, momentum=0.9, epochs=20), lambda: chain(64, 64, 10), "digits", (64, 64, 10), 16, 8),
    "mnist-mlp": Case(
        Recipe(lr=0.01, momentum=0.9, epochs=5), lambda: chain(784, 128, 64, 10), "mnist", (784, 128, 64, 10), 0.5
    ),
    "mnist-mlp-dropout": Case(
        Recipe(lr=0.01, momentum=0.9, epochs=5),
        lambda: chain(784, 128, 64, 10, dropout=0.1), "mnist", (784, 128, 64, 10), 0.5,
    ),
    "layer-norm": Case(
        Recipe(lr=0.1, momentum=0.9, epochs=20, compile=True), layer_norm, "digits", models=4, slower=8
    ),
    "cnn": Case(Recipe(lr=0.05, momentum=0.9, epochs=2), small_cnn, "images-1", models=0.1),
    "resnet9": Case(Recipe(lr=0.05, momentum=0.9, epochs=1), lambda: resnet9(3, 8, 10), "images-3", models=0.1),
    "resnet9-bn-8": Case(CIFAR, lambda: resnet9(3, 8, 10, "batch"), "cifar10", models=0.1),
    "resnet9-bn-32": Case(CIFAR, lambda: resnet9(3, 32, 10, "batch"), "cifar10", models=0.05),
    "text": Case(
        text.RECIPE.model_copy(update={"epochs": 1, "batch_size": 50, "compile": True}),
        lambda: TextClassifier(*TEXT_SIZE, classes=2, width=64, heads=4, layers=2), "sst2", models=2 / 3, slower=4,
    ),
    "gpt": Case(
        language_model.RECIPE.model_copy(update={"epochs": 1, "compile": True}),
        lambda: CausalTransformer(*SPEECH_SIZE, width=32, heads=4, layers=2, dropout=0.1, attention_dropout=0.1),
        "shakespeare", models=2 / 3, slower=4,
    ),
}  # fmt: skip
"""Names to tasks. The dropout case is the setting of dattri's own MNIST MLP, the last four are those of configs/, all with fewer
epochs."""


class Data(NamedTuple):
    """Training examples and, after them, queries."""

    inputs: Nested
    targets: Tensor
    n: int
    """How many are training examples."""
    told: str
    """Where they are from."""

    def cut(self, queries: int) -> Data:
        """Return the same with so many queries."""
        kept = slice(self.n + queries)
        return Data(mapped(lambda leaf: leaf[kept], self.inputs), self.targets[kept], self.n, self.told)


class _Held(DifferentiableTask):
    """A case as a task, with its data in memory."""

    def __init__(self, case: Case, data: Data, recipe: Recipe | None = None):
        self.recipe, self.make = recipe or case.recipe, case.module
        before, after = slice(data.n), slice(data.n, None)
        self.train_inputs = mapped(lambda leaf: leaf[before], data.inputs)
        self.query_inputs = mapped(lambda leaf: leaf[after], data.inputs)
        self.train_targets, self.query_targets = data.targets[before], data.targets[after]

    def module(self) -> nn.Module:
        """Return a new model of the case."""
        return self.make()


class _Classes(_Held, Classification):
    """One class an example."""


class _Speeches(_Held, NextToken):
    """The next token everywhere."""


def benchmark(case: Case, data: Data, recipe: Recipe | None = None) -> DifferentiableTask:
    """Return a case as a task, perhaps by another recipe."""
    return (_Speeches if data.targets.ndim > 1 else _Classes)(case, data, recipe)


@cache
def load(name: str, folder: Path) -> Data:
    """Return the data of a case. Where the published file is not in the folder, noise of its shape stands for it.

    "images" are noise of the shape of MNIST's or CIFAR's, always.
    """
    if name == "digits":
        digits = load_digits()
        return Data(torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target), 1000, "digits")
    if name == "mnist":
        file = np.load(folder / "mnist_t10k.npz")
        inputs = torch.tensor(file["x"][:5500].reshape(-1, 784) / 255, dtype=torch.float32)
        return Data(inputs, torch.tensor(file["y"][:5500].astype(np.int64)), 5000, "MNIST")
    if name in _PUBLISHED and (folder / _PUBLISHED[name]).is_file():
        return _published(name, folder / _PUBLISHED[name])
    return _noise(name)


_PUBLISHED = {
    "cifar10": "cifar10_full_jpeg.npz",
    "sst2": "sst2_train6k.tsv.gz",
    "shakespeare": "tinyshakespeare.txt.gz",
}


def _published(name: str, path: Path) -> Data:
    """Return what the built-in task makes of its file, with the arguments of its configuration."""
    vocabulary, length = SPEECH_SIZE if name == "shakespeare" else TEXT_SIZE
    tasks: dict[str, Callable[[], DifferentiableTask]] = {
        "cifar10": lambda: cifar10.Cifar10(path, n=2000, t=100),
        "sst2": lambda: text.Text(path, "sentence", "label", n=2000, t=200, length=length, vocabulary=vocabulary),
        "shakespeare": lambda: language_model.LanguageModel(path, n=1000, t=100, length=length, vocabulary=vocabulary),
    }
    task = tasks[name]()
    pairs = [(task.train_inputs, task.query_inputs), (task.train_targets, task.query_targets)]
    inputs, targets = (_joined(*pair) for pair in pairs)
    return Data(inputs, targets, task.n, path.name)


def _joined(one: Nested, other: Nested) -> Nested:
    if isinstance(one, dict):
        return {name: torch.cat([value, other[name]]) for name, value in one.items()}
    return torch.cat([one, other])


def _noise(name: str) -> Data:
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randint, generator=generator)
    if name in ("images-1", "images-3", "cifar10"):
        shape = (1, 28, 28) if name == "images-1" else (3, 32, 32)
        count, n = (2100, 2000) if name == "cifar10" else (900, 800)
        return Data(torch.randn(count, *shape, generator=generator), draw(10, (count,)), n, "noise")
    vocabulary, length = SPEECH_SIZE if name == "shakespeare" else TEXT_SIZE
    count, n = (1100, 1000) if name == "shakespeare" else (2200, 2000)
    tokens = draw(1, vocabulary, (count, length))
    there = torch.arange(length) < draw(1, length + 1, (count, 1))
    if name == "shakespeare":
        return Data(tokens, tokens.roll(-1, 1).where(there, NOTHING), n, "noise")
    return Data({"tokens": tokens.where(there, 0), "mask": there}, draw(2, (count,)), n, "noise")


def half_runs(n: int, count: int) -> list[Run]:
    rng = np.random.default_rng(0)
    return [Run(row, np.sort(rng.permutation(n)[: n // 2]), row) for row in range(count)]


def plain(task: DifferentiableTask, runs: Sequence[Run]) -> list[np.ndarray]:
    """One model after another, as one writes it by hand with care; returns the margins of the queries."""
    return [_by_hand(task, run) for run in runs]


def _by_hand(task: DifferentiableTask, run: Run) -> np.ndarray:
    torch.manual_seed(run.seed)
    model, recipe = task.module(), task.recipe
    optimizer = _optimizer(recipe, model)
    rates = iter(recipe.learning_rates(len(run.subset)).tolist())
    rng = np.random.default_rng(run.seed)
    x, y = (mapped(lambda leaf: leaf[run.subset], part) for part in (task.train_inputs, task.train_targets))
    loss_of = _loss_a_token if isinstance(task, NextToken) else F.cross_entropy
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(y)).split(recipe.batch_size):
            inputs = mapped(lambda leaf, batch=batch: leaf[batch], x)
            if recipe.crop or recipe.flip:
                inputs = augment(inputs, recipe.crop, recipe.flip, rng)
            loss = loss_of(_call(model, inputs), y[batch])
            optimizer.param_groups[0]["lr"] = next(rates)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return task.measurement("margin")(_call(model, task.query_inputs), task.query_targets).numpy()


def _call(model: nn.Module, inputs: Nested) -> Tensor:
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":  # as it is by default it goes parameter by parameter on a CPU
        return torch.optim.AdamW(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(
        model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )


def _loss_a_token(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean over documents of the mean over their tokens."""
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=NOTHING)
    return (losses.reshape(targets.shape).sum(1) / (targets != NOTHING).sum(1)).mean()
