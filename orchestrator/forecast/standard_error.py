"""The standard errors to expect of values, from a few trainings in pairs: before a sweep, nothing else tells it.

What is measured is the spread of exactly the quantity that an estimator averages. Paired runs share their seed, so that the noise
which will cancel in the sweep cancels here too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.designs import ErrorForecast
from orchestrator.sweeps.plan import DesignPlan, to_runs
from orchestrator.sweeps.sweep import Sweep, empty_outputs
from workers.packs import PackTrainer

Outputs = NDArray[np.float64]
"""(r, t + 1): the queries' and, last, their mean, the utility."""

_MOST_ROUNDS = 8
_SEEDS = 3


@dataclass(frozen=True)
class ExpectedErrors:
    """Standard errors to expect from one design alone, in units of the first measure; NaN where none can be told."""

    attribution: float = math.nan
    """Of one attribution: of one example, for one query, mean over the queries."""
    utility: float = math.nan
    """Of one example's effect on the utility, the mean over the queries: what a stopping criterion watches."""


@dataclass(frozen=True)
class Trial:
    """One design to be tried out with at most `runs` trainings."""

    sweep: Sweep
    plans: Mapping[str, DesignPlan]
    plan: DesignPlan
    runs: int
    trainer: PackTrainer
    """Of the sweep's task, on one thread of this machine."""

    @property
    def rng(self) -> np.random.Generator:
        """A new stream for what is drawn here; it never touches the sweep's own keys."""
        return np.random.default_rng([self.sweep.config.seed, len(self.plans), *self.plan.name.encode()])

    def train(self, masks: list[NDArray[np.bool_]], seeds: list[int]) -> Outputs | None:
        """Return the first measure's outputs, and their mean, of r subsets; None if a training failed. Nothing is kept."""
        chosen = to_runs(0, np.stack(masks), np.array(seeds), np.ones(len(masks), dtype=bool), self.plan.design)
        measure = self.sweep.config.measures[0]
        outcomes = self.trainer.train(chosen, (measure,), self.sweep.queries)
        if any(outcome.failure for outcome in outcomes):
            return None
        return _with_mean(np.stack([outcome.outputs[measure] for outcome in outcomes]).astype(np.float64))


def _with_mean(outputs: NDArray[np.float64]) -> Outputs:
    return np.concatenate([outputs, outputs.mean(axis=-1, keepdims=True)], axis=-1)


def expected_errors(trial: Trial) -> ExpectedErrors:
    """Return the standard errors to expect of values from a design alone.

    NaN where a design gives no values, where a training failed, or where `trial.runs` are too few.
    """
    way = trial.plan.design.error_forecast
    if trial.plan.design.purpose != "fit" or way is None:
        return ExpectedErrors()
    variance = _WAYS[way](trial)
    if variance is None:
        return ExpectedErrors()
    errors = np.sqrt(np.maximum(variance, 0))
    return ExpectedErrors(float(errors[:-1].mean()), float(errors[-1]))


def _random_subsets(trial: Trial) -> Outputs | None:
    """Return the variance (t + 1,) of a difference of means: between subsets and, shared by a subset's runs, between seeds."""
    design, context = trial.plan.design, trial.plan.context
    subsets = design.count(context)
    pairs = min(trial.runs // 2, 2 * _MOST_ROUNDS, subsets)
    if pairs < 4:
        return None
    chosen = trial.rng.choice(subsets, pairs, replace=False)
    masks = [mask for index in chosen for mask in [design.mask(int(index), context)] * 2]
    outputs = trial.train(masks, list(range(2 * pairs)))
    if outputs is None:
        return None
    within = ((outputs[::2] - outputs[1::2]) ** 2 / 2).mean(axis=0)
    between = ((outputs[::2] + outputs[1::2]) / 2).var(axis=0, ddof=1) - within / 2
    one = np.maximum(between, 0) + within / design.seeds
    share = float(np.clip(np.mean(masks), 1 / subsets, 1 - 1 / subsets))
    variance: Outputs = one / (subsets * share * (1 - share))
    return variance


def _left_out(trial: Trial) -> Outputs | None:
    """Return the variance (t + 1,) of f(all) - f(all without something): over seeds, which both share if the design is paired."""
    design, context = trial.plan.design, trial.plan.context
    left_out = min((trial.runs - _SEEDS) // _SEEDS, 4, design.count(context))
    if left_out < 1:
        return None
    chosen = trial.rng.choice(design.count(context), left_out, replace=False)
    masks = [np.ones(context.n, dtype=bool), *(design.mask(int(index), context) for index in chosen)]
    outputs = trial.train([mask for mask in masks for _ in range(_SEEDS)], list(range(_SEEDS)) * len(masks))
    if outputs is None:
        return None
    by_subset = outputs.reshape(len(masks), _SEEDS, -1)
    full = [plan.design for plan in trial.plans.values() if "full" in plan.design.serves]
    whole = trial.plans[design.paired_with].design if design.paired_with else None
    if whole is not None and "full" in whole.serves and whole.seeds == design.seeds:
        paired: Outputs = (by_subset[0] - by_subset[1:]).var(axis=1, ddof=1).mean(axis=0) / design.seeds
        return paired
    variance: Outputs = by_subset.var(axis=1, ddof=1).mean(axis=0)
    return variance / design.seeds + variance / max(1, sum(one.seeds for one in full))


def _prefixes(trial: Trial) -> Outputs | None:
    """Return the variance (t + 1,) of a mean gain over permutations: f(those before, and these) - f(those before).

    Gains are largest and most different at the start of a permutation, where few of its steps are: steps are drawn from strata
    whose widths double, and weighed by how many examples each adds. Truncation, which makes errors smaller, is not foreseen.
    """
    drawn = trial.plan.design.prefixes(trial.plan.context)
    if drawn is None:
        return None
    sizes = np.concatenate([[0], drawn.sizes])
    empty = _no_data(trial)
    strata = [one for one in _strata(len(sizes) - 1) if one.start > 0 or empty is not None]
    if trial.runs < 2 * len(strata) or not strata:
        return None
    rounds = min(_MOST_ROUNDS, trial.runs // (2 * len(strata)))
    rng = trial.rng
    steps = np.array([rng.integers(one.start, one.stop) for one in strata for _ in range(rounds)])
    orders = [drawn.order(int(rng.integers(drawn.permutations))) for _ in steps]
    before = [_prefix(order, sizes[k]) for order, k in zip(orders, steps, strict=True)]
    after = [_prefix(order, sizes[k + 1]) for order, k in zip(orders, steps, strict=True)]
    seeds = list(range(len(steps)))
    trained = [j for j, mask in enumerate(before) if mask.any()]
    outputs = trial.train([*after, *(before[j] for j in trained)], [*seeds, *trained])
    if outputs is None:
        return None
    start = np.empty_like(outputs[: len(steps)]) if empty is None else np.tile(empty, (len(steps), 1))
    start[trained] = outputs[len(steps) :]
    gains = (outputs[: len(steps)] - start) / np.diff(sizes)[steps, None]
    weights = np.repeat([(sizes[one.stop] - sizes[one.start]) / rounds for one in strata], rounds)
    weights /= weights.sum()
    variance: Outputs = weights @ gains**2 - (weights @ gains) ** 2
    return variance / drawn.permutations


_WAYS: dict[ErrorForecast, Callable[[Trial], Outputs | None]] = {
    ErrorForecast.RANDOM_SUBSETS: _random_subsets,
    ErrorForecast.LEFT_OUT: _left_out,
    ErrorForecast.PREFIXES: _prefixes,
}


def _strata(steps: int) -> Iterator[range]:
    """Yield ranges of steps, 0, 1, 2-3, 4-7, ..., that cover all of them."""
    start, stop = 0, 1
    while start < steps:
        yield range(start, min(stop, steps))
        start, stop = stop, 2 * stop


def _prefix(order: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    mask = np.zeros(len(order), dtype=bool)
    mask[order[:size]] = True
    return mask


def _no_data(trial: Trial) -> Outputs | None:
    """Return the outputs (t + 1,) of a model of no data: as an estimator's `empty` option says, else as the task does."""
    sweep = trial.sweep
    for section in sweep.config.estimators.values():
        empty = section.options.empty_output
        if empty is not None and section.measure in (None, sweep.config.measures[0]):
            return np.full(sweep.t + 1, empty)
    found = empty_outputs(sweep, sweep.config.measures[0])
    return None if found is None else _with_mean(found.astype(np.float64))
