"""Small trainings in float64, and what a weight really does to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from estimators.trajectories.step_graph import Curvature, Twin
from estimators.trajectories.walk import Asked, Walk
from workers import Classification, Recipe, Run
from workers.training.alone import train
from workers.training.replay import Replay

N, T = 13, 4


class Small(Classification):
    """Three classes in four dimensions, as numbers or as images of 2 x 2, by any module."""

    def __init__(self, module: Any, images: bool = False, weights: bool = False, **recipe: Any):
        self.recipe = Recipe(**{"lr": 0.1, "epochs": 3, "batch_size": 5, "precision": "float64"} | recipe)
        self.make = module
        generator = torch.Generator().manual_seed(1)
        targets = torch.randint(3, (N + T,), generator=generator)
        inputs = torch.randn(3, 4, generator=generator)[targets] + torch.randn(N + T, 4, generator=generator)
        inputs = inputs.reshape(-1, 1, 2, 2) if images else inputs
        self.train_inputs, self.train_targets = inputs[:N], targets[:N]
        self.query_inputs, self.query_targets = inputs[N:], targets[N:]
        if weights:
            self.train_weights = torch.rand(N, generator=generator) + 0.5

    def module(self) -> nn.Module:
        return self.make()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.3), nn.Linear(5, 3))


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 5),
        nn.BatchNorm1d(5),
        nn.Tanh(),
        nn.Linear(5, 4),
        nn.BatchNorm1d(4, momentum=None),
        nn.Linear(4, 3),
    )


def convolved() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 2, padding=1), nn.BatchNorm2d(3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 3)
    )


def run_of(task: Small, **options: Any) -> Run:
    return Run(0, np.arange(task.n, dtype=np.int64), 5, **{"checkpoint_epochs": (task.recipe.epochs,)} | options)


def margins(task: Small, module: nn.Module) -> Tensor:
    return task.objective("margin")(module, task.examples("task").to(torch.float64).read(torch.arange(T)))


def walked(task: Small, run: Run, curvature: Curvature = "hessian") -> Tensor:
    """Return the effects (n, t) on the margins by one walk backwards."""
    kept = train(task, run)[1]
    queries = task.examples("task").to(torch.float64)
    walk = Walk(Replay(task, run, kept), Twin(task, run, "walk"), kept[-1], curvature)
    return walk.effects(Asked(task.objective("margin"), lambda where: queries.read(torch.arange(T)[where]), T))


def differences(task: Small, run: Run, step: float = 1e-4) -> Tensor:
    """Return the same by central differences of models that are really trained with another weight of one example."""

    def trained(example: int, change: float) -> Tensor:
        weights = np.ones(task.n)
        weights[example] += change
        return margins(task, train(task, replace(run, weights=weights))[0]).detach()

    return torch.stack([(trained(i, step) - trained(i, -step)) / (2 * step) for i in range(task.n)])


def error(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())
