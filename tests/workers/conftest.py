"""Small tasks for the tests of workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from workers import Classification, Recipe, Run


class Blobs(Classification):
    """Gaussian blobs of three classes in five dimensions, by a linear model or a small MLP with dropout."""

    def __init__(self, recipe: Recipe, hidden: int = 0, dropout: float = 0.0, n: int = 37, t: int = 11):
        generator = torch.Generator().manual_seed(3)
        self.recipe = recipe
        self.hidden, self.dropout = hidden, dropout
        centers = 2 * torch.randn(3, 5, generator=generator)
        targets = torch.randint(3, (n + t,), generator=generator)
        inputs = centers[targets] + torch.randn(n + t, 5, generator=generator)
        self.train_inputs, self.train_targets = inputs[:n], targets[:n]
        self.query_inputs, self.query_targets = inputs[n:], targets[n:]

    def module(self) -> nn.Module:
        if not self.hidden:
            return nn.Linear(5, 3)
        return nn.Sequential(nn.Linear(5, self.hidden), nn.ReLU(), nn.Dropout(self.dropout), nn.Linear(self.hidden, 3))


class MeanTask:
    """Black box: the model is the mean of the subset's numbers; runs fail when asked to."""

    measures = ("value",)

    def __init__(self, n: int = 10, t: int = 4):
        self.n, self.t = n, t
        self.train_calls = 0

    def train(self, subset: np.ndarray, seed: int) -> float:
        self.train_calls += 1
        if 0 not in subset:
            raise ArithmeticError("example 0 is missing\nand more")
        return float(subset.mean()) + seed

    def measure(self, model: float) -> Mapping[str, Any]:
        return {"value": model + np.arange(self.t), "scalar": model, "nan": np.full(self.t, np.nan)}

    def measure_train(self, model: float) -> Mapping[str, Any]:
        return {"value": model * np.arange(self.n)}


@pytest.fixture
def blobs() -> type[Blobs]:
    return Blobs


@pytest.fixture
def mean_task() -> MeanTask:
    return MeanTask()


@pytest.fixture
def run() -> Run:
    return Run(row=7, subset=np.arange(0, 37, 2, dtype=np.int64), seed=11)
