"""Coordinate descent for one query's path on a compact working set.

Covariance updates (Friedman, Hastie, Tibshirani 2010, section 2.2) on a dense copy of the Gram matrix of the working set only,
with Anderson extrapolation for the ill-conditioned dense end. The set comes from the sequential strong rule (Tibshirani et al.
2012, equation 8), and whatever the rule missed is found by checking the KKT conditions on the full gradient. Working sets only
grow along a path.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from estimators.lasso.jit import compiled

Floating = NDArray[Any]
"""float32 or float64, all arguments alike."""
Index = NDArray[np.int64]
DEPTH = 5
"""Steps that an Anderson extrapolation combines."""


class Target(NamedTuple):
    """One query's quadratic problem; arrays of one floating type."""

    gram: Floating
    """(n, n)"""
    cross: Floating
    """(n,)"""
    power: float
    """The squares of the outputs, less their mean."""
    ridge: float


class Descent(NamedTuple):
    """How far a path is walked."""

    penalties: Floating
    """(L,) descending."""
    tolerance: float
    """Of the duality gap, relative to the objective at w = 0."""
    max_sweeps: int
    patience: int
    """Penalties without a lower held-out error after which the walk ends."""


class Warm(NamedTuple):
    """Where a path starts."""

    columns: Index
    """(s,)"""
    values: Floating
    """(s,)"""


class HeldOut(NamedTuple):
    """What a path is judged by; without held-out subsets (h = 0) its last column is kept."""

    masks: NDArray[np.uint8]
    """(n, h) 0 or 1."""
    means: Floating
    """(n,) of the columns."""
    scales: Floating
    """(n,) of the columns."""
    outputs: Floating
    """(h,) less the mean output; NaN where there is none."""


class Walked(NamedTuple):
    """What a path brought."""

    errors: Floating
    """(L,) mean squared held-out errors; NaN where the walk had ended."""
    spreads: Floating
    """(L,) their standard errors."""
    gaps: Floating
    """(L,) duality gaps."""
    reached: int
    """Penalties walked."""
    best: int
    """Which of them had the least held-out error."""
    columns: Index
    """(s,) which coefficients are not zero there."""
    values: Floating
    """(s,)"""
    predictions: Floating
    """(h,) and what they predict for the held-out subsets, less the mean output."""


class Working(NamedTuple):
    """What a walk updates in place; the working set is columns[:size]."""

    columns: Index
    """(n,) those in the working set, in the order in which they joined."""
    inside: NDArray[np.bool_]
    """(n,) whether a column is in it."""
    w: Floating
    """(n,) coefficients, in the order of `columns`."""
    gradient: Floating
    """(n,) cross - (gram + ridge) w."""


class Goal(NamedTuple):
    """What one penalty asks for."""

    penalty: float
    threshold: float
    """The strong rule's: columns with a larger |gradient| join the working set first."""
    gap: float
    """Duality gap that is small enough."""
    max_sweeps: int


@compiled
def subtract_rows(gram: Floating, index: Index, values: Floating, size: int, out: Floating) -> None:
    """out -= gram[index[:size]].T @ values[:size], four rows at a time; zeros of `values` are skipped."""
    used = np.empty(size, np.int64)
    count = 0
    for p in range(size):
        if values[p] != 0:
            used[count] = p
            count += 1
    n = out.shape[0]
    at = 0
    while at + 4 <= count:
        a, b, c, d = used[at], used[at + 1], used[at + 2], used[at + 3]
        wa, wb, wc, wd = values[a], values[b], values[c], values[d]
        ga, gb, gc, gd = gram[index[a]], gram[index[b]], gram[index[c]], gram[index[d]]
        for j in range(n):
            out[j] -= (wa * ga[j] + wb * gb[j]) + (wc * gc[j] + wd * gd[j])
        at += 4
    while at < count:
        row, w = gram[index[used[at]]], values[used[at]]
        for j in range(n):
            out[j] -= w * row[j]
        at += 1


@compiled
def enlarged(compact: Floating, size: int, needed: int) -> Floating:
    """Return `compact` if it holds `needed` columns, else a larger copy of its first `size`."""
    capacity = compact.shape[0]
    if needed <= capacity:
        return compact
    while capacity < needed:
        capacity *= 2
    larger = np.empty((capacity, capacity), compact.dtype)
    larger[:size, :size] = compact[:size, :size]
    return larger


@compiled
def fill(compact: Floating, gram: Floating, ridge: float, index: Index, size: int, needed: int) -> None:
    """Copy the Gram rows and columns of index[size:needed] into `compact`."""
    for p in range(size, needed):
        row = gram[index[p]]
        for i in range(needed):
            compact[p, i] = row[index[i]]
        for i in range(size):
            compact[i, p] = compact[p, i]
        compact[p, p] += ridge


@compiled
def sweep(compact: Floating, residual: Floating, w: Floating, size: int, penalty: float) -> bool:
    """Minimize over each coordinate of the working set once; say whether anything moved.

    `residual` is cross - Gram w on the working set, kept up to date; `penalty` has the arrays' type.
    """
    moved = False
    for p in range(size):
        curvature, old = compact[p, p], w[p]
        z = residual[p] + curvature * old
        if z > penalty:
            new = (z - penalty) / curvature
        elif z < -penalty:
            new = (z + penalty) / curvature
        else:
            new = penalty - penalty
        step = new - old
        if step != 0:
            moved = True
            w[p] = new
            row = compact[p]
            for i in range(size):
                residual[i] -= step * row[i]
    return moved


@compiled
def duality_gap(
    power: float, cross: Floating, residual: Floating, w: Floating, size: int, penalty: float, largest: float
) -> float:
    """Return the duality gap; `largest` is max |residual| over all columns that the certificate covers.

    With residual = c - (G + ridge) w, the augmented residual sum of squares is power - w'c - w'residual, and the dual
    point is the residual vector scaled into the feasible set (Massias, Gramfort, Salmon 2018, equation 5).
    """
    w_cross, w_residual, l1 = 0.0, 0.0, 0.0
    for p in range(size):
        if w[p] != 0:
            w_cross += np.float64(w[p]) * cross[p]
            w_residual += np.float64(w[p]) * residual[p]
            l1 += abs(np.float64(w[p]))
    squared = max(power - w_cross - w_residual, 0.0)
    scale = 1.0 if largest <= penalty else penalty / largest
    return 0.5 * squared + penalty * l1 - scale * (power - w_cross) + 0.5 * scale * scale * squared


@compiled
def objective(power: float, cross: Floating, residual: Floating, w: Floating, size: int, penalty: float) -> float:
    """Return 1/2 (squared residuals) + penalty ||w||_1, from the same covariances."""
    total = 0.5 * power
    for p in range(size):
        if w[p] != 0:
            total += abs(np.float64(w[p])) * penalty - 0.5 * np.float64(w[p]) * (np.float64(cross[p]) + residual[p])
    return total


@compiled
def solve_damped(system: Floating, values: Floating) -> None:
    """Solve a small positive definite system in place, by Gauss-Jordan elimination: `values` becomes the solution.

    Written out because it is called every few sweeps for a system of DEPTH equations: a call of LAPACK allocates, and checks
    what the damping has made sure of.
    """
    count = values.shape[0]
    for i in range(count):
        pivot = system[i, i]
        values[i] /= pivot
        for k in range(count):
            system[i, k] /= pivot
        for j in range(count):
            factor = system[j, i]
            if j != i:
                values[j] -= factor * values[i]
                for k in range(count):
                    system[j, k] -= factor * system[i, k]


@compiled
def combination(history: Floating, size: int) -> Floating:
    """Return weights (K,), summing to one, under which the K steps between the iterates (K + 1, size) combine to the shortest."""
    count = history.shape[0] - 1
    system, weights = np.zeros((count, count)), np.ones(count)
    trace = 1e-300
    for i in range(count):
        for j in range(i + 1):
            total = 0.0
            for p in range(size):
                total += np.float64(history[i + 1, p] - history[i, p]) * (history[j + 1, p] - history[j, p])
            system[i, j] = system[j, i] = total
        trace += system[i, i]
    for i in range(count):
        system[i, i] += 1e-8 * trace
    solve_damped(system, weights)
    total = 0.0
    for i in range(count):
        total += weights[i]
    for i in range(count):
        weights[i] /= total
    return weights


@compiled
def copy_into(to_w: Floating, to_residual: Floating, w: Floating, residual: Floating, size: int) -> None:
    """Copy the first `size` numbers of `w` and `residual`."""
    for p in range(size):
        to_w[p], to_residual[p] = w[p], residual[p]


@compiled
def extrapolate(
    history: Floating,
    residuals: Floating,
    power: float,
    cross: Floating,
    size: int,
    penalty: float,
    w: Floating,
    residual: Floating,
) -> None:
    """Move `w` and `residual` to the Anderson extrapolation of the last iterates if that lowers the objective.

    history and residuals are (K + 1, size), oldest first (Bertrand, Massias 2021, algorithm 1). The residual is affine in w, so
    its extrapolation costs no product with the Gram matrix.
    """
    weights = combination(history, size)
    point, there = np.zeros_like(w), np.zeros_like(w)
    for k in range(weights.shape[0]):
        for p in range(size):
            point[p] += weights[k] * history[k + 1, p]
            there[p] += weights[k] * residuals[k + 1, p]
    if objective(power, cross, there, point, size, penalty) < objective(power, cross, residual, w, size, penalty):
        copy_into(w, residual, point, there, size)


@compiled
def largest_of(values: Floating, size: int) -> float:
    """Return max |values[:size]| as float64."""
    largest = 0.0
    for i in range(size):
        largest = max(largest, np.float64(abs(values[i])))
    return largest


@compiled
def predict(
    held: NDArray[np.uint8],
    means: Floating,
    scales: Floating,
    index: Index,
    w: Floating,
    size: int,
    out: Floating,
) -> None:
    """out = predictions, less the mean output, of the held-out subsets: held (n, h), out (h,)."""
    offset = 0.0
    out[:] = 0
    for p in range(size):
        if w[p] != 0:
            row, value = held[index[p]], w[p] * scales[index[p]]
            offset += np.float64(value) * means[index[p]]
            for i in range(out.shape[0]):
                out[i] += value * row[i]
    for i in range(out.shape[0]):
        out[i] -= offset


@compiled
def squared_errors(outputs: Floating, predictions: Floating) -> tuple[float, float]:
    """Return mean and standard error of the squared errors over the outputs that are not NaN."""
    total, squares, count = 0.0, 0.0, 0
    for i in range(outputs.shape[0]):
        error = np.float64(outputs[i]) - predictions[i]
        if error == error:  # not NaN
            total += error * error
            squares += error**4
            count += 1
    mean = total / max(count, 1)
    return mean, np.sqrt(max(squares / max(count, 1) - mean * mean, 0.0) / max(count, 1))


@compiled
def violated(gradient: Floating, inside: NDArray[np.bool_], gram: Floating, penalty: float) -> bool:
    """Say whether a column outside the working set violates its KKT condition."""
    for j in range(gradient.shape[0]):  # noqa: SIM110 (compiled)
        if not inside[j] and abs(gradient[j]) > penalty and gram[j, j] > 0:
            return True
    return False


@compiled
def refresh(
    gram: Floating, cross: Floating, ridge: float, index: Index, w: Floating, size: int, gradient: Floating
) -> None:
    """gradient = cross - (gram + ridge) w over all columns, from scratch, so that rounding does not pile up."""
    gradient[:] = cross
    subtract_rows(gram, index, w, size, gradient)
    for p in range(size):
        gradient[index[p]] -= ridge * w[p]


@compiled
def solve(target: Target, goal: Goal, working: Working, compact: Floating, size: int) -> tuple[Floating, int, float]:
    """Solve for one penalty from where `working` stands.

    Columns above the goal's threshold join the working set first, those that violate a KKT condition afterwards. Returns the
    compact matrix (perhaps a larger one), the size of the working set and the duality gap over all columns.
    """
    gram, cross, power, ridge = target.gram, target.cross, target.power, target.ridge
    index, inside, w, gradient = working.columns, working.inside, working.w, working.gradient
    penalty, threshold, max_sweeps = goal.penalty, goal.threshold, goal.max_sweeps
    residual, inner_cross = np.empty_like(cross), np.empty_like(cross)
    gap, sweeps = np.inf, 0
    while True:
        needed = size
        for j in range(cross.shape[0]):
            if not inside[j] and abs(gradient[j]) > threshold and gram[j, j] > 0:
                index[needed], w[needed], inside[j] = j, 0, True
                needed += 1
        compact = enlarged(compact, size, needed)
        fill(compact, gram, ridge, index, size, needed)
        size = needed
        for p in range(size):
            residual[p], inner_cross[p] = gradient[index[p]], cross[index[p]]
        moved, kept = True, 0
        history, residuals = np.empty((DEPTH + 1, size), cross.dtype), np.empty((DEPTH + 1, size), cross.dtype)
        while moved and sweeps < max_sweeps:
            moved = sweep(compact, residual, w, size, penalty)
            sweeps += 1
            if duality_gap(power, inner_cross, residual, w, size, penalty, largest_of(residual, size)) <= goal.gap:
                break
            copy_into(history[kept], residuals[kept], w, residual, size)
            kept += 1
            if kept > DEPTH:  # what it leaves is swept before it is judged: extrapolation knows no exact zeros
                extrapolate(history, residuals, power, inner_cross, size, penalty, w, residual)
                copy_into(history[0], residuals[0], w, residual, size)
                kept = 1
        refresh(gram, cross, ridge, index, w, size, gradient)
        for p in range(size):
            residual[p] = gradient[index[p]]
        gap = duality_gap(power, inner_cross, residual, w, size, penalty, largest_of(gradient, cross.shape[0]))
        if gap <= goal.gap or sweeps >= max_sweeps or not (moved or violated(gradient, inside, gram, penalty)):
            return compact, size, gap
        threshold = penalty


@compiled
def walk(target: Target, descent: Descent, warm: Warm, held: HeldOut) -> Walked:
    """Walk one query down its path from a warm start, keeping only the column of least held-out error."""
    gram, cross, power, ridge = target.gram, target.cross, target.power, target.ridge
    penalties, outputs = descent.penalties, held.outputs
    n, length, subsets = cross.shape[0], penalties.shape[0], outputs.shape[0]
    index, inside, w = np.empty(n, np.int64), np.zeros(n, np.bool_), np.zeros_like(cross)
    errors, spreads, gaps = np.full(length, np.nan), np.full(length, np.nan), np.full(length, np.nan)
    gradient, prediction, compact = cross.copy(), np.empty(subsets, cross.dtype), np.empty((64, 64), cross.dtype)
    working = Working(index, inside, w, gradient)
    size = warm.columns.shape[0]
    for p in range(size):
        index[p], w[p], inside[warm.columns[p]] = warm.columns[p], warm.values[p], True
    compact = enlarged(compact, 0, size)
    fill(compact, gram, ridge, index, 0, size)
    refresh(gram, cross, ridge, index, w, size, gradient)
    best, reached = 0, 0
    best_w, best_prediction = w[:size].copy(), prediction.copy()
    previous = penalties[0]
    for k in range(length):
        strong = 2 * penalties[k] - previous
        goal = Goal(penalties[k], strong, descent.tolerance * 0.5 * power, descent.max_sweeps)
        compact, size, gaps[k] = solve(target, goal, working, compact, size)
        previous, reached = penalties[k], k + 1
        predict(held.masks, held.means, held.scales, index, w, size, prediction)
        errors[k], spreads[k] = squared_errors(outputs, prediction)
        if k == 0 or subsets == 0 or errors[k] < errors[best]:
            best, best_w, best_prediction = k, w[:size].copy(), prediction.copy()
        elif k - best >= descent.patience:
            break
    support = np.flatnonzero(best_w)
    return Walked(errors, spreads, gaps, reached, best, index[support], best_w[support], best_prediction)
