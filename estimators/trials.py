"""Small problems whose effects are known, to try an estimator on: what `estimators.testing` judges by."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Evidence, Reference, Runs
from workers.errors import ConfigError
from workers.runs import Queries, Run

if TYPE_CHECKING:
    from workers.task import Classification, DifferentiableTask

Floats = NDArray[np.float64]
Outputs = Callable[[NDArray[np.bool_], NDArray[np.int64]], Floats]
"""(masks (m, n), repeats (m,)) -> outputs (m, t)."""

EFFECTS = np.array(
    [
        [1.5, -1.0, 0.5],
        [-1.0, 2.0, 1.0],
        [0.75, 1.0, -2.0],
        [-2.0, 0.5, -1.0],
        [0.5, -1.5, -1.0],
        [1.0, 1.0, 1.5],
        [-0.25, -2.0, 1.5],
        [0.0, 0.0, 0.0],
    ]
)
"""(n, t) what each of the game's examples adds to each query's output; no query's effects are another's."""
BIASES = 2 * np.roll(EFFECTS, 3, axis=0)
"""(n, t) what is added to the effects with a subset's first seed and taken from them with its second: only the mean is right."""


class Game:
    """A black box: a model is its subset, and its outputs are the sums of its examples' effects, whatever the seed."""

    n, t = EFFECTS.shape

    def train(self, subset: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        """Return the subset."""
        return subset

    def measure(self, model: NDArray[np.int64]) -> dict[str, Floats]:
        """Return the sum of effects for each query."""
        return {"worth": EFFECTS[model].sum(axis=0)}

    def measure_empty(self) -> dict[str, Floats]:
        """Return nothing gained."""
        return {"worth": np.zeros(self.t)}


def game_evidence(*needs: str, queries: Queries | None = None) -> Evidence:
    """Return what an estimator with these needs sees of the game: one design for each.

    Every subset has two seeds, each with a bias of its own; their mean is the game's. Prefixes of permutations have one, without.
    """

    def outputs(masks: NDArray[np.bool_], repeats: NDArray[np.int64]) -> Floats:
        found: Floats = masks @ EFFECTS
        return found if repeats.max() == 0 else found + np.where(repeats == 0, 1, -1)[:, None] * (masks @ BIASES)

    empty, given = np.zeros(Game.t, np.float32), queries or Queries()
    runs = {need: _runs(need, Game.n, "worth", outputs) for need in run_needs(needs)}
    return Evidence(Game.n, Game.t, "worth", runs=runs, task=Game(), queries=given, seed=3, empty=empty)


def run_needs(needs: tuple[str, ...] | frozenset[str]) -> list[str]:
    """Return the needs that designs meet with their runs, sorted."""
    return sorted(set(needs) - {"checkpoints", "gradients"})


def model_evidence(*needs: str, measure: str = "margin") -> Evidence:
    """Return two reference models of a convex task, with checkpoints after epochs 30 and 60, and runs for the needs."""
    from workers.training.alone import train

    task = _task()
    everything = np.arange(task.n)
    references = tuple(Reference(seed, train(task, Run(seed, everything, seed, (30, 60)))[1]) for seed in (0, 1))

    def outputs(masks: NDArray[np.bool_], repeats: NDArray[np.int64]) -> Floats:
        return trained(task, masks, repeats, measure, Queries())

    runs = {need: _runs(need, task.n, measure, outputs) for need in run_needs(needs)}
    return Evidence(task.n, task.t, measure, runs=runs, references=references, task=task, seed=3)


def trained(
    task: DifferentiableTask,
    masks: NDArray[np.bool_],
    repeats: NDArray[np.int64],
    measure: str,
    queries: Queries,
) -> Floats:
    """Return the measure (m, t) of models trained on the subsets (m, n), each with its repeat as seed."""
    from workers.packed.choice import is_resident
    from workers.packs import train_pack

    runs = [
        Run(row, np.flatnonzero(mask), int(seed)) for row, (mask, seed) in enumerate(zip(masks, repeats, strict=True))
    ]
    outcomes = train_pack(task, runs, [measure], queries, method="resident" if is_resident(task, "cpu") else "alone")
    found: Floats = np.stack([outcome.outputs[measure] for outcome in outcomes]).astype(np.float64)
    return found


def retrained(evidence: Evidence) -> Floats:
    """Return what including each example does to each query's output, by training without it (n, t)."""
    from workers.task import DifferentiableTask

    n = evidence.n
    masks = np.vstack([np.ones((1, n), bool), ~np.eye(n, dtype=bool)])
    seeds = np.zeros(n + 1, np.int64)
    task = evidence.task
    if not isinstance(task, DifferentiableTask):
        raise ConfigError("only a DifferentiableTask is trained here")
    found = trained(task, masks, seeds, evidence.measure, evidence.queries)
    effects: Floats = found[0] - found[1:]
    return effects


def _runs(need: str, n: int, measure: str, outputs: Outputs) -> Runs:
    """Return runs of a design that meets a need: two seeds a subset, but for prefixes of permutations."""
    kind, masks, permutations = _design(need, n)
    seeds = 1 if need == "permutations" else 2
    subsets, repeats = np.repeat(np.arange(len(masks)), seeds), np.tile(np.arange(seeds), len(masks))
    found = outputs(masks[subsets], repeats).astype(np.float32)
    return Runs(need, kind, measure, masks[subsets], found, subsets, repeats, permutations)


def _design(need: str, n: int) -> tuple[str, NDArray[np.bool_], NDArray[np.int64] | None]:
    """Return a design's kind, its subsets (s, n), and which permutation (s,) each is a prefix of."""
    rng = np.random.default_rng(5)
    if need == "subsets":
        few = n <= 8
        every = np.array(list(product([False, True], repeat=n)))[1:] if few else rng.random((4 * n, n)) < 0.5
        return "bernoulli", every, None
    if need == "permutations":
        orders = [rng.permutation(n) for _ in range(6)]
        masks = np.array([np.isin(np.arange(n), order[:size]) for order in orders for size in range(1, n + 1)])
        return need, masks, np.repeat(np.arange(len(orders)), n)
    if need == "leave_group_out":
        return need, np.arange(n) // 2 != np.arange(n // 2)[:, None], None
    if need == "leave_one_out":
        return need, ~np.eye(n, dtype=bool), None
    return "full", np.ones((1, n), dtype=bool), None


def _task() -> Classification:
    """Return logistic regression on two overlapping clouds: convex, 24 examples, 4 queries that lie well inside the clouds."""
    import torch
    from torch import nn

    from workers.recipe import Recipe
    from workers.task import Classification

    class Clouds(Classification):
        def __init__(self) -> None:
            rng = torch.Generator().manual_seed(4)
            self.recipe = Recipe(lr=0.5, batch_size=24, epochs=60, precision="float64", weight_decay=0.01)
            self.train_targets = torch.arange(24) % 2
            signs = 2.0 * self.train_targets.double() - 1
            noise = torch.randn(24, 2, generator=rng, dtype=torch.float64)
            self.train_inputs = signs[:, None] * torch.tensor([1.0, 0.5], dtype=torch.float64) + noise
            self.query_targets = torch.tensor([0, 1, 0, 1])
            sides = 2.0 * self.query_targets.double() - 1
            self.query_inputs = sides[:, None] * torch.tensor([[1.0, 0.5], [1.0, 0.5], [0.8, 0.8], [0.8, 0.8]]).double()

        def module(self) -> nn.Module:
            return nn.Linear(2, 2)

    return Clouds()
