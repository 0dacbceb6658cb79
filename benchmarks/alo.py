"""How far one Newton step is from fitting without an example: logistic regression on the digits.

    python benchmarks/alo.py [--json FILE] [--examples 40] [--t 50]

A linear layer with softmax on the first classes of the digits is fitted to the optimum of the mean cross-entropy
+ (penalty / 2) |V|^2, and again without each of some examples, by Newton's method in float64. Against the true differences of
the margins of t queries stand three steps:

- alo: with the curvature of the others, and the slope of their mean objective;
- first order: the same slope, with the curvature of all: no leverage;
- influence: with the slope of the left-out loss alone, which leaves out that n - 1 losses weigh less against the penalty.

Errors are root mean squares over examples and queries, relative to that of the true differences. The leverage is the largest of
the examples left out, the largest eigenvalue of H_i K_i.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from estimators.curvature.left_out import LeftOut
from workers.measures import margin
from workers.tasks.digits import Digits

CASES = ((2, 200, 0.1), (2, 200, 0.01), (2, 200, 0.001), (3, 300, 0.1), (3, 300, 0.01), (3, 300, 0.001), (3, 60, 0.01))
"""Classes, training examples, penalty."""


@dataclass(frozen=True)
class Row:
    """One problem: what was left out, and by how much the two are off."""

    classes: int
    n: int
    penalty: float
    leverage: float
    alo: float
    first_order: float
    influence: float


def fit(inputs: Tensor, targets: Tensor, classes: int, penalty: float) -> Tensor:
    """Return the optimum V (d, c) by Newton's method on the dense Hessian, with steps halved until the gradient falls."""
    weights = torch.zeros(inputs.shape[1], classes, dtype=torch.float64)

    def slope(v: Tensor) -> Tensor:
        return inputs.T @ ((inputs @ v).softmax(1) - F.one_hot(targets, classes)) / len(inputs) + penalty * v

    for _ in range(100):
        gradient = slope(weights)
        if float(gradient.norm()) < 1e-12:
            break
        curvature = hessian(inputs, weights) / len(inputs)
        curvature.diagonal().add_(penalty)
        step, size = torch.linalg.solve(curvature, gradient.flatten()).reshape(weights.shape), 1.0
        while float(slope(weights - size * step).norm()) > float(gradient.norm()) and size > 1e-6:
            size /= 2
        weights = weights - size * step
    return weights


def blocks(outputs: Tensor) -> Tensor:
    """Return the Hessians of the cross-entropy in the outputs, (n, c, c)."""
    p = outputs.softmax(1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def jacobians(inputs: Tensor, classes: int) -> Tensor:
    """Return dz/dV, (n, c, d c)."""
    units = torch.eye(classes, dtype=inputs.dtype)
    return (inputs[:, None, :, None] * units[None, :, None, :]).reshape(len(inputs), classes, -1)


def hessian(inputs: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of the losses' Hessians in V, (d c, d c)."""
    moved = jacobians(inputs, weights.shape[1])
    return moved.flatten(0, 1).T @ (blocks(inputs @ weights) @ moved).flatten(0, 1)


def row(classes: int, n: int, penalty: float, examples: int, t: int) -> Row:
    """Fit with and without, and compare."""
    task = Digits(n=1000, t=500)
    inputs, targets = task.train_inputs.double().flatten(1), task.train_targets
    asked, wanted = task.query_inputs.double().flatten(1), task.query_targets
    kept, few = (targets < classes).nonzero()[:n, 0], (wanted < classes).nonzero()[:t, 0]
    inputs, asked = (F.pad(one, (0, 1), value=1.0) for one in (inputs[kept], asked[few]))
    targets, wanted, n = targets[kept], wanted[few], len(kept)
    weights = fit(inputs, targets, classes, penalty)
    curvature, moved = hessian(inputs, weights), jacobians(inputs, classes)
    slopes = (inputs @ weights).softmax(1) - F.one_hot(targets, classes)
    chosen = torch.arange(0, n, max(1, n // examples))[:examples]
    left_out = LeftOut.of(curvature, penalty, penalty * weights.flatten(), n)
    steps, leverages = left_out.steps(moved[chosen], slopes[chosen], blocks(inputs @ weights)[chosen])
    full = curvature + n * penalty * torch.eye(len(curvature), dtype=torch.float64)
    alone = (moved[chosen].mT @ slopes[chosen][:, :, None])[:, :, 0]
    first, influence = (torch.linalg.solve(full, side.T).T for side in (alone + penalty * weights.flatten(), alone))

    def differences(moves: Tensor) -> Tensor:
        return torch.stack([margin(asked @ weights, wanted) - margin(asked @ one, wanted) for one in moves])

    everything = torch.arange(n)
    true = differences(
        torch.stack([fit(inputs[everything != i], targets[everything != i], classes, penalty) for i in chosen])
    )
    errors = [
        float((differences(weights + step.reshape(-1, *weights.shape)) - true).norm() / true.norm())
        for step in (steps, first, influence)
    ]
    return Row(classes, n, penalty, float(leverages.max()), *errors)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--t", type=int, default=50)
    given = parser.parse_args()
    print("| classes | n | penalty | largest leverage | alo | first order | influence |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for classes, n, penalty in CASES:
        rows.append(row(classes, n, penalty, given.examples, given.t))
        one = rows[-1]
        print(
            f"| {classes} | {one.n} | {penalty:g} | {one.leverage:.2f} | {one.alo:.1%} | {one.first_order:.1%} "
            f"| {one.influence:.1%} |",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in rows], indent=1))


if __name__ == "__main__":
    main()
