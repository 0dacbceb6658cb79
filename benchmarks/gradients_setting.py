"""The model and the data that benchmarks/gradients.py measures on: MNIST's MLP, trained once."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from estimators.evidence import Evidence, Reference
from estimators.registry import find
from workers.errors import DataError
from workers.loading import find_data
from workers.runs import Run
from workers.task import Classification
from workers.tasks.mnist import RECIPES, Mnist
from workers.tasks.networks import mlp
from workers.training.alone import train

EPOCHS = 10
"""Of the reference model; what gradients cost does not depend on it."""


@dataclass(frozen=True)
class Row:
    """One comparison: seconds of both sides, the median of the rounds' ratios, and how well their scores agree."""

    case: str
    other: str
    ours: float
    theirs: float
    ratio: float
    correlation: float
    agree: bool


@dataclass(frozen=True)
class Setting:
    """A trained model and its data."""

    task: Classification
    evidence: Evidence
    trained: nn.Module

    @property
    def module(self) -> nn.Module:
        """A copy for one side: libraries change what they are given."""
        return copy.deepcopy(self.trained)

    @property
    def train(self) -> TensorDataset:
        return TensorDataset(self.task.train_inputs, self.task.train_targets)

    @property
    def queries(self) -> TensorDataset:
        return TensorDataset(self.task.query_inputs, self.task.query_targets)

    def ours(self, name: str, **options: object) -> np.ndarray:
        return find(name)(models=1, **options).attribute(self.evidence).values


class RandomImages(Classification):
    """Images of noise in the shape of MNIST's."""

    def __init__(self, n: int, t: int):
        rng = torch.Generator().manual_seed(0)
        images = torch.randn(n + t, 1, 28, 28, generator=rng)
        labels = (images.flatten(1) @ torch.randn(784, 10, generator=rng)).argmax(1)
        self.recipe = RECIPES["mlp"]
        self.train_inputs, self.query_inputs = images[:n], images[n:]
        self.train_targets, self.query_targets = labels[:n], labels[n:]

    def module(self) -> nn.Module:
        return mlp(784, [128, 64], 10, 0.1)


def setting(n: int, t: int, epochs: int | None = EPOCHS) -> Setting:
    """Train the reference model; for `epochs` None, as long as the recipe says."""
    try:
        task: Classification = Mnist(path=find_data("mnist_t10k.npz", Path.cwd()), n=n, t=t)
    except DataError:
        print("mnist_t10k.npz was not found: the images are random, and nothing is learned from them")
        task = RandomImages(n, t)
    if epochs is not None:
        task.recipe = task.recipe.model_copy(update={"epochs": epochs})
    checkpoints = train(task, Run(0, np.arange(n), 0, (task.recipe.epochs,)))[1]
    evidence = Evidence(n, t, "margin", references=(Reference(0, checkpoints),), task=task, seed=0)
    module = task.module()
    module.load_state_dict(checkpoints[-1].state)
    return Setting(task, evidence, module.eval())
