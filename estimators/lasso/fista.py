"""All queries' paths in lock-step by FISTA: one matrix product an iteration for every query, on any torch device.

Beck and Teboulle 2009 (section 4) with the gradient restart of O'Donoghue and Candes 2015 (section 3.2), each query
restarting by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from estimators.lasso.collect import Held
from estimators.lasso.settings import Settings
from estimators.lasso.solution import Column, Paths
from estimators.lasso.statistics import Quadratic

CHECK_EVERY = 10
"""Iterations between two looks at the duality gaps."""


@dataclass(frozen=True)
class _Shared:
    """The problem on the device. A row a query everywhere."""

    gram: Tensor
    """(n, n), the ridge on its diagonal."""
    step: float
    """One over its largest eigenvalue."""

    @classmethod
    def of(cls, problem: Quadratic, ridge: float, device: str) -> _Shared:
        """Move a problem to the device and bound its largest eigenvalue from above."""
        gram = torch.from_numpy(problem.gram).to(device, copy=True)
        gram.diagonal().add_(ridge)
        return cls(gram, 1 / _largest_eigenvalue(gram))


def _largest_eigenvalue(gram: Tensor, iterations: int = 50) -> float:
    """Return a bound a little above the largest eigenvalue: power iteration plus its residual, at most the largest row sum."""
    vector = torch.ones(len(gram), dtype=gram.dtype, device=gram.device) + torch.linspace(
        0, 0.5, len(gram), dtype=gram.dtype, device=gram.device
    )
    value = torch.zeros((), dtype=gram.dtype, device=gram.device)
    for _ in range(iterations):
        vector = vector / vector.norm().clamp_min(torch.finfo(gram.dtype).tiny)
        product = gram @ vector
        value = vector @ product
        residual = (product - value * vector).norm()
        vector = product
    rows = float(gram.abs().sum(1).max())
    return max(min(float(value + residual) * 1.01, rows), torch.finfo(gram.dtype).tiny)


def lockstep(
    problem: Quadratic,
    penalties: NDArray[np.float64],
    settings: Settings,
    held: Held,
    starts: Sequence[Column],
    patience: int | None,
) -> Paths:
    """Solve all queries along their penalties (k, L); arguments and result are those of `solve_paths`."""
    device, dtype = settings.device, torch.float32 if settings.precision == "float32" else torch.float64
    shared = _Shared.of(problem, settings.ridge, device)
    cross = torch.from_numpy(problem.cross).to(device, dtype)
    power = torch.from_numpy(problem.power).to(device)
    steps = torch.from_numpy(penalties).to(device, dtype)
    judge = _Judge.of(problem, held, device, dtype)
    count, length = penalties.shape
    w = torch.zeros_like(cross)
    for k, start in enumerate(starts):
        w[k, torch.from_numpy(start.index).to(device)] = torch.from_numpy(start.values).to(device, dtype)
    errors, spreads, gaps = (
        torch.full((count, length), torch.nan, dtype=torch.float64, device=device) for _ in range(3)
    )
    best = torch.zeros(count, dtype=torch.int64, device=device)
    best_w = w.clone()
    open_ = torch.arange(count, device=device)
    for at in range(length):
        target = settings.tolerance * 0.5 * power[open_]
        solved, gap = _fista(
            shared, cross[open_], power[open_], steps[open_, at], w[open_], target, settings.max_sweeps
        )
        w[open_], gaps[open_, at] = solved, gap
        errors[open_, at], spreads[open_, at] = judge.errors(solved, open_)
        least = errors[open_, best[open_]]
        better = (errors[open_, at] < least) | (at == 0) | torch.full_like(least, judge.empty, dtype=torch.bool)
        best[open_[better]] = at
        best_w[open_[better]] = solved[better]
        if patience is not None and not judge.empty:
            open_ = open_[at - best[open_] < patience]
        if not len(open_):
            break
    halves = torch.where(power > 0, 0.5 * power, 1.0)
    return Paths(
        penalties, errors.cpu().numpy(), spreads.cpu().numpy(), (gaps / halves[:, None]).cpu().numpy(), best.cpu().numpy(),
        [_column(row) for row in best_w.cpu()], judge.predict(best_w).cpu().numpy() + problem.output_means[:, None],
    )  # fmt: skip


def _column(row: Tensor) -> Column:
    index = row.nonzero()[:, 0]
    return Column(index.numpy(), row[index].numpy())


def _fista(
    shared: _Shared, cross: Tensor, power: Tensor, penalties: Tensor, start: Tensor, target: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Return solutions (k, n) and duality gaps (k,) for one penalty a query; queries that have converged leave the batch."""
    result, gaps = start.clone(), torch.zeros_like(power)
    rows = torch.arange(len(cross), device=cross.device)
    w, ahead, momentum = start, start, torch.ones_like(penalties)
    threshold = shared.step * penalties
    for iteration in range(most + 1):
        if iteration % CHECK_EVERY == 0 or iteration == most:
            gap = _gaps(shared, cross[rows], power[rows], penalties[rows], w)
            result[rows], gaps[rows] = w, gap
            going = gap > target[rows]
            rows, w, ahead, momentum = rows[going], w[going], ahead[going], momentum[going]
            if not len(rows) or iteration == most:
                break
        point = ahead + shared.step * (cross[rows] - ahead @ shared.gram)
        moved = point.sign() * (point.abs() - threshold[rows, None]).clamp_min(0)
        restart = ((ahead - moved) * (moved - w)).sum(1) > 0
        faster = torch.where(restart, 1.0, 0.5 * (1 + torch.sqrt(1 + 4 * momentum**2)))
        factor = torch.where(restart, 0.0, (momentum - 1) / faster)
        ahead = moved + factor[:, None] * (moved - w)
        w, momentum = moved, faster
    return result, gaps


def _gaps(shared: _Shared, cross: Tensor, power: Tensor, penalties: Tensor, w: Tensor) -> Tensor:
    """Return the duality gaps (k,) in float64 (Massias, Gramfort, Salmon 2018, equation 5, in covariances)."""
    residual = cross - w @ shared.gram
    w_cross = (w.double() * cross).sum(1)
    squared = (power - w_cross - (w.double() * residual).sum(1)).clamp_min(0)
    largest = residual.abs().amax(1).double()
    scale = torch.where(largest <= penalties, 1.0, penalties / largest.clamp_min(torch.finfo(torch.float64).tiny))
    l1 = w.double().abs().sum(1)
    return 0.5 * squared + penalties * l1 - scale * (power - w_cross) + 0.5 * scale**2 * squared


@dataclass(frozen=True)
class _Judge:
    """The held-out subsets on the device."""

    design: Tensor
    """(n, h) centred and scaled."""
    outputs: Tensor
    """(k, h) less the mean output; NaN where there is none."""

    @classmethod
    def of(cls, problem: Quadratic, held: Held, device: str, dtype: torch.dtype) -> _Judge:
        """Move the held-out subsets of a problem to the device."""
        means, scales = (torch.from_numpy(a).to(device, dtype)[:, None] for a in (problem.mask_means, problem.scales))
        outputs = held.outputs - problem.output_means[:, None]
        return cls(
            (torch.from_numpy(held.masks).to(device, dtype) - means) * scales, torch.from_numpy(outputs).to(device)
        )

    @property
    def empty(self) -> bool:
        """Whether there are no held-out subsets."""
        return self.design.shape[1] == 0

    def predict(self, w: Tensor) -> Tensor:
        """Return predictions (k, h), less the mean output."""
        return w @ self.design

    def errors(self, w: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean squared errors (k,) of some queries, and their standard errors."""
        squared = (self.outputs[rows].double() - self.predict(w)).square()
        there = ~squared.isnan()
        count = there.sum(1).clamp_min(1)
        squared = squared.nan_to_num()
        mean = squared.sum(1) / count
        variance = (squared.square().sum(1) / count - mean.square()).clamp_min(0)
        return mean, (variance / count).sqrt()
