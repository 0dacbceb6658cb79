"""Influence by preconditioned conjugate gradients: products a query, true residuals, and time against the machine's peak."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from gradients_setting import Row, Setting, setting
from torch import Tensor

from estimators.curvature.choice import SolverOptions, System
from estimators.curvature.damping import l2_curvature, unrolled_damping
from estimators.curvature.gauss_newton import GaussNewton
from estimators.curvature.solvers import relative
from estimators.gradient_based.influence import Influence
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.per_example import gradients

TOLERANCE = 1e-2
MOST = 10
"""Products a query, those of the sketch that all queries share included."""
SLOWEST = 1.5
"""Times the arithmetic of a product at the machine's peak."""
QUERIES = 20
RANKS = (100, 200)
IN_FLOAT64 = 4
"""Solutions whose residual is computed in float64, too."""
SIDE, TRIES = 2048, 5


@dataclass
class Counted:
    """The Gauss-Newton product, and what it took."""

    curvature: GaussNewton
    products: int = 0
    seconds: float = 0.0
    """Of the processor: what other programs do meanwhile is no part of it."""

    def __post_init__(self) -> None:
        self._product = self.curvature.product
        self.curvature.product = self  # type: ignore[method-assign, assignment]

    def __call__(self, rows: Tensor) -> Tensor:
        clock = time.process_time()
        found = self._product(rows)
        self.seconds += time.process_time() - clock
        self.products += len(rows)
        return found


def peak() -> float:
    """Return operations a second of the processor in a float32 matrix product: the best of a few."""
    left, found = torch.randn(SIDE, SIDE), 0.0
    for _ in range(TRIES):
        clock = time.process_time()
        left @ left
        found = max(found, 2 * SIDE**3 / (time.process_time() - clock))
    return found


def options(rank: int) -> SolverOptions:
    """Return conjugate gradients with Nystroem's preconditioner, all else by default."""
    chosen = Influence(solver="cg", preconditioner="nystroem", rank=rank, tolerance=TOLERANCE)
    names = ("solver", "tolerance", "max_iterations", "preconditioner", "rank", "depth", "scale", "budget")
    return SolverOptions(**{name: getattr(chosen, name) for name in names}, seed=0)


def influence(given: Setting, rounds: int) -> list[Row]:
    """Solve for some of the queries with sketches of several ranks."""
    n, t = len(given.train), len(given.queries)
    trained = setting(n, t, epochs=None)
    task, (checkpoint,) = trained.task, trained.evidence.references[0].checkpoints
    train, model = Examples.training(task, torch.float32), Model(task, checkpoint, torch.float32)
    damping = unrolled_damping(task.recipe, n) + l2_curvature(task.recipe)
    queries = Examples.queried(task, trained.evidence.queries, torch.float32)[: min(QUERIES, t)]
    sides = gradients(model, task.objective("margin"), queries, 2**30)
    exact = GaussNewton(Model(task, checkpoint, torch.float64), task, Examples.training(task, torch.float64), 2**30)
    arithmetic, rows = 8 * n * model.p, []
    for rank in RANKS:
        counted = Counted(GaussNewton(model, task, train, 2**30))
        best = peak()
        found = System(counted.curvature, options(rank)).solver(damping)(sides)
        best = max(best, peak())
        each, sketch = (counted.products - rank) / len(sides), rank / t
        some = found.values[:IN_FLOAT64].double()
        off = relative(sides[:IN_FLOAT64] - exact.product(some) - damping * some, sides[:IN_FLOAT64].double())
        slower = counted.seconds * best / (counted.products * arithmetic)
        print(
            f"influence: rank {rank}, damping {damping:.4g}, {len(sides)} of {t} queries: {each:.1f} products a query, and "
            f"{sketch:.1f} that all share; largest residual {found.residual:.2g}, in float64 {float(off.max()):.2g} of "
            f"{len(off)}, {found.unconverged} above {TOLERANCE:g}; a product takes {counted.seconds / counted.products:.3f} s, "
            f"{slower:.2f} times its arithmetic at {best / 1e9:.0f} GFLOP/s"
        )
        ours, theirs = (each + sketch) * t * counted.seconds / counted.products, MOST * t * arithmetic / best
        reached = found.unconverged == 0 and each + sketch <= MOST and slower <= SLOWEST
        rows.append(Row(f"influence, {rank}", "10 at peak", ours, theirs, theirs / ours, float("nan"), reached))
    return rows
