"""What the tests of estimators share: tiny float64 tasks with reference models and gradients by plain autograd loops; analytic
games wrapped as black-box tasks, literal values of them, and runs of them as the store would hand them over."""

from collections.abc import Callable
from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from estimators.evidence import Evidence, Reference, Runs
from workers import Classification, DifferentiableTask, Queries, Recipe, Regression, Run
from workers.runs import Checkpoint
from workers.training.alone import train

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
        t = len(queries.take(len(task.examples(queries.source))))
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


class Game:
    """A black-box task: training remembers the coalition, measuring returns its worth for t = 2 queries (one doubled)."""

    t = 2

    def __init__(self, n, worth, noise=0.0):
        self.n, self.worth, self.noise = n, worth, noise

    def train(self, subset, seed):
        return tuple(int(i) for i in subset), seed

    def measure(self, model):
        subset, seed = model
        worth = self.worth(subset) + self.noise * np.random.default_rng(seed).normal(size=2)
        return {"worth": np.array([1.0, 2.0]) * worth}

    def output(self, mask, seed=0):
        return self.measure(self.train(np.flatnonzero(mask), seed))["worth"]

    def true(self, values):
        """Values (n, t) of both queries, from those of the worth."""
        return np.outer(values, [1.0, 2.0])


def additive(n):
    return lambda subset: sum(0.5 * i - 0.7 for i in subset)


def airport(n):
    return lambda subset: max((i // 2 + 1.0 for i in subset), default=0.0)


def majority(n):
    return lambda subset: float(len(subset) > n / 2)


def shoes(n):
    """The first two have a left shoe, the others a right one."""
    return lambda subset: float(min(sum(i < 2 for i in subset), sum(i >= 2 for i in subset)))


GAMES = {"additive": additive, "airport": airport, "majority": majority, "shoes": shoes}


@pytest.fixture(scope="session")
def game():
    """game("airport", n, noise=0)."""
    return lambda name, n, noise=0.0: Game(n, GAMES[name](n), noise)


@pytest.fixture(scope="session")
def table_game():
    """A game from the worths of all 2**n subsets; bit i of the index is example i."""

    def build(worths):
        n = int(np.log2(len(worths)))
        return Game(n, lambda subset: float(worths[sum(1 << i for i in subset)]))

    return build


@pytest.fixture(scope="session")
def by_orders():
    """Shapley values (n,) of a game by the mean marginal over all n! orders, with weights on positions."""

    def values(game, weights=None):
        n = game.n
        weights = np.ones(n) if weights is None else weights
        total, orders = np.zeros(n), list(permutations(range(n)))
        for order in orders:
            for place, i in enumerate(order):
                gain = game.worth(sorted(order[: place + 1])) - game.worth(sorted(order[:place]))
                total[i] += weights[place] * gain
        return total / len(orders)

    return values


@pytest.fixture(scope="session")
def by_subsets():
    """Semivalues (n,) of a game by a literal loop over the subsets of the others; p(s) weighs their sizes."""

    def values(game, p):
        n, found = game.n, np.zeros(game.n)
        for i in range(n):
            others = [j for j in range(n) if j != i]
            for s in range(n):
                for subset in combinations(others, s):
                    gain = game.worth(sorted((*subset, i))) - game.worth(subset)
                    found[i] += p[s] / comb(n - 1, s) * gain
        return found

    return values


def as_runs(game, kind, masks, seeds=1, first_seed=0, permutations=None, **more):
    masks = np.asarray(masks, dtype=bool).reshape(-1, game.n)
    rows = [(j, r) for j in range(len(masks)) for r in range(seeds)]
    outputs = [game.output(masks[j], first_seed + j * seeds + r) for j, r in rows]
    subsets, repeats = np.array(rows, dtype=np.int64).T
    if permutations is not None:
        more["permutations"] = np.asarray(permutations, dtype=np.int64)[subsets]
    return Runs("fit", kind, "worth", masks[subsets], np.array(outputs, np.float32), subsets, repeats, **more)


@pytest.fixture(scope="session")
def runs_of():
    """runs_of(game, kind, masks, seeds, first_seed): train and measure every mask, seed by seed."""
    return as_runs


@pytest.fixture(scope="session")
def permuted():
    """permuted(game, orders, step, tolerance): prefixes of the orders as the design stores them; truncated ones are absent."""

    def build(game, orders, step=1, tolerance=None, seeds=1, first_seed=0, antithetic=False):
        masks, permutations = [], []
        full = game.output(np.ones(game.n, bool)).mean()
        for k, order in enumerate(orders):
            sizes = [*range(step, game.n, step), game.n]
            for size in sizes:
                mask = np.isin(np.arange(game.n), order[:size])
                masks.append(mask)
                permutations.append(k)
                if tolerance is not None and abs(full - game.output(mask).mean()) <= tolerance:
                    break
        return as_runs(game, "permutations", masks, seeds, first_seed, permutations, antithetic=antithetic)

    return build


@pytest.fixture(scope="session")
def evidence_with():
    """evidence_with(game, runs, ..., empty=True): what an estimator sees of these runs."""

    def build(game, *runs, empty=True, **more):
        given = np.array([1.0, 2.0], np.float32) * np.float32(game.worth(())) if empty else None
        by_name = {f"{one.design}-{k}" if k else one.design: one for k, one in enumerate(runs)}
        return Evidence(game.n, game.t, "worth", runs=by_name, empty=given, **more)

    return build
