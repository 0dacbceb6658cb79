"""Tiny float64 tasks, reference models of them, and gradients by plain autograd loops."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from estimators.evidence import Evidence, Reference
from workers import Classification, DifferentiableTask, Queries, Recipe, Regression, Run
from workers.runs import Checkpoint
from workers.training import train

RECIPE = Recipe(lr=0.3, batch_size=8, epochs=4, precision="float64")


class _Toy:
    """Gaussian inputs (24 training examples, 5 queries, 3 features) and a linear model or a small MLP."""

    outputs = 1

    def __init__(self, hidden: int = 0, recipe: Recipe = RECIPE, weights: Tensor | None = None, n: int = 24):
        rng = torch.Generator().manual_seed(3)
        self.recipe, self.hidden, self.train_weights = recipe, hidden, weights
        self.train_inputs = torch.randn(n, 3, generator=rng, dtype=torch.float64)
        self.query_inputs = torch.randn(5, 3, generator=rng, dtype=torch.float64)
        self.train_targets = self.label(self.train_inputs, torch.randn(n, generator=rng, dtype=torch.float64))
        self.query_targets = self.label(self.query_inputs, torch.randn(5, generator=rng, dtype=torch.float64))

    def module(self) -> nn.Module:
        if not self.hidden:
            return nn.Linear(3, self.outputs)
        return nn.Sequential(nn.Linear(3, self.hidden), nn.Tanh(), nn.Linear(self.hidden, self.outputs))


class ToyClassification(_Toy, Classification):
    outputs = 3

    def label(self, inputs: Tensor, noise: Tensor) -> Tensor:
        score = inputs[:, 0] + 0.5 * noise
        return (score > -0.5).long() + (score > 0.5).long()


class ToyRegression(_Toy, Regression):
    def label(self, inputs: Tensor, noise: Tensor) -> Tensor:
        return inputs[:, 0] - inputs[:, 1] ** 2 + 0.3 * noise


@pytest.fixture(scope="session")
def toy() -> Callable[..., DifferentiableTask]:
    """toy("classification" or "regression", hidden=0, recipe=..., weights=...) builds a task."""
    kinds = {"classification": ToyClassification, "regression": ToyRegression}
    return lambda kind, **options: kinds[kind](**options)


@pytest.fixture(scope="session")
def evidence_of() -> Callable[..., Evidence]:
    """evidence_of(task, measure) trains two reference models, with checkpoints of the epochs 0, 2 and the last."""

    def build(task: DifferentiableTask, measure: str, models: int = 2, queries: Queries | None = None) -> Evidence:
        epochs = (0, 2, task.recipe.epochs)
        everything = np.arange(task.n)
        references = tuple(
            Reference(seed, train(task, Run(seed, everything, seed, epochs))[1]) for seed in range(models)
        )
        queries = queries or Queries()
        t = len(task.examples(queries)[0])
        return Evidence(task.n, t, measure, references=references, task=task, queries=queries, seed=11)

    return build


@pytest.fixture(scope="session")
def autograd() -> Callable[..., np.ndarray]:
    """autograd(task, checkpoint, objective, inputs, targets): per-example gradients (b, p), one backward pass each."""

    def gradients(
        task: DifferentiableTask, checkpoint: Checkpoint, objective: Callable, inputs: Tensor, targets: Tensor
    ) -> np.ndarray:
        module = task.module().double()
        module.load_state_dict(checkpoint.state)
        module.eval()
        rows = []
        for i in range(len(inputs)):
            value = objective(module(inputs[i : i + 1]), targets[i : i + 1]).sum()
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, list(module.parameters()))]))
        return torch.stack(rows).numpy()

    return gradients
