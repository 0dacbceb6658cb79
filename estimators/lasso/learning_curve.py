"""The learning curve: what held-out correlation so many runs bring, and what more of them would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.lasso.collect import Held, Split, blocks_of, mean_of_finite
from estimators.lasso.cost import Forecast
from estimators.lasso.diagnostics import spearman
from estimators.lasso.selection import walk_paths
from estimators.lasso.settings import Settings
from estimators.lasso.statistics import Floats, Statistics
from workers.errors import DataError

FRACTIONS = (0.125, 0.25, 0.5, 0.75, 1.0)
"""Parts of the fitting subsets that are measured, nested in each other."""
FEWEST_HELD = 20
SHARE, CHEAP_OPERATIONS = 0.2, 2e9
WALKS = 2 * len(FRACTIONS)
"""Paths that are walked, for one of the fit: every number of runs from both sides."""
RATES = np.linspace(0.25, 1.5, 26)
"""Exponents g of the curve's 1/m**g that are tried; 1 is the rate of a regression whose columns are known."""


@dataclass(frozen=True)
class LearningCurve:
    """Held-out Spearman correlation, mean over queries, against the number of fitting runs."""

    runs: NDArray[np.int64]
    """(k,) fitting runs."""
    correlations: Floats
    """(k,)"""
    resampled: Floats
    """(B, k) the same with held-out subsets and queries drawn again."""

    def extrapolate(self, runs: int, level: float = 0.95) -> tuple[float, float, float]:
        """Return the correlation expected from so many fitting runs, and an interval around it.

        The curve is 1/r**2 = a + b/m**g: a regression's squared correlation is c**2 m / (m + k) when its error falls as 1/m,
        and g lets the rate differ. The interval holds the resampled points' curves, with every g that fits about as well as the
        best one, so that it is wide where the points do not determine the form.
        """
        losses, values = self._fits(self.correlations[None], runs)
        central = float(values[0, losses[0].argmin()])
        losses, values = self._fits(self.resampled, runs)
        noise = self.resampled.var(0).sum()
        plausible = values[losses <= losses.min(1, keepdims=True) + noise]
        tail = (1 - level) / 2
        low, high = np.quantile(plausible, [tail, 1 - tail])
        return central, float(min(low, central)), float(max(high, central))

    def ceiling(self, level: float = 0.95) -> tuple[float, float, float]:
        """Return the correlation that ever more runs would approach, and an interval around it."""
        return self.extrapolate(2**62, level)

    def sentence(self, more: int) -> str:
        """Return what another `more` runs would bring, in words."""
        then, low, high = self.extrapolate(int(self.runs[-1]) + more)
        return (
            f"another {more:,} runs would bring the held-out correlation from {self.correlations[-1]:.2f} "
            f"to about {then:.2f} ({low:.2f} to {high:.2f})"
        )

    def plain(self) -> dict[str, Any]:
        """Return points, ceiling and what as many runs again would bring, as plain data."""
        return {
            "runs": self.runs.tolist(),
            "correlation": self.correlations.tolist(),
            "low": np.quantile(self.resampled, 0.025, axis=0).tolist(),
            "high": np.quantile(self.resampled, 0.975, axis=0).tolist(),
            "ceiling": list(self.ceiling()),
            "sentence": self.sentence(int(self.runs[-1])),
        }

    def _fits(self, correlations: Floats, runs: int) -> tuple[Floats, Floats]:
        """Fit samples (B, k) with every exponent; return sums of squared errors and the values at `runs`, (B, g) each."""
        r = np.maximum(correlations, 1e-3)[:, None]
        z, weight = 1 / r**2, r**6  # errors of r to first order, and not of 1/r**2
        u = (self.runs[-1] / self.runs) ** RATES[:, None]
        total, su, suu = weight.sum(-1), (weight * u).sum(-1), (weight * u * u).sum(-1)
        sz, suz = (weight * z).sum(-1), (weight * u * z).sum(-1)
        slope = np.maximum((total * suz - su * sz) / np.maximum(total * suu - su * su, 1e-300), 0)
        level = (sz - slope * su) / total
        slope = np.where(level < 1, np.maximum((suz - su) / suu, 0), slope)  # no correlation is above one
        level = np.maximum(level, 1)
        losses = np.square(1 / np.sqrt(level[..., None] + slope[..., None] * u) - r).sum(-1)
        return losses, 1 / np.sqrt(level + slope * (float(self.runs[-1]) / runs) ** RATES)


def affordable_queries(expected: Forecast) -> int:
    """Return of how many queries a curve is cheap: a fifth of the fit it goes with, or about a second."""
    limit = max(SHARE * expected.operations, CHEAP_OPERATIONS) - expected.gram_operations
    each = (expected.cross_operations + WALKS * expected.path_operations) / expected.queries
    return int(min(max(limit / each, 0), expected.queries))


def learning_curve(
    masks: NDArray[np.bool_],
    outputs: NDArray[np.floating[Any]],
    subsets: NDArray[np.int64],
    settings: Settings,
    seed: int,
    fractions: tuple[float, ...] = FRACTIONS,
    resamples: int = 200,
) -> LearningCurve:
    """Fit on nested parts of the runs, masks (m, n), outputs (m, t), subsets (m,), and score each on the same subsets.

    One half of the held-out subsets chooses lambda and the other is scored, then the reverse: lambda is never chosen on what
    it is scored on. Raises DataError with fewer than 20 held-out subsets.
    """
    split = Split.draw(subsets, settings.model_copy(update={"folds": None}), seed)
    held = split.parts >= 0
    distinct = np.unique(subsets[held])
    if len(distinct) < FEWEST_HELD:
        raise DataError(
            f"a learning curve needs at least {FEWEST_HELD} held-out subsets, found {len(distinct)}: raise holdout or add runs"
        )
    halves = [_held(masks, outputs, subsets, part, settings) for part in (distinct[::2], distinct[1::2])]
    order = np.random.default_rng([seed, 1]).permutation(np.unique(subsets[~held]))
    statistics = Statistics.empty(masks.shape[1], np.nan_to_num(mean_of_finite(outputs[~held])))
    sizes, predictions, begin = [], [], 0
    for fraction in sorted(fractions):
        end = max(2, round(fraction * len(order)))
        chosen = np.isin(subsets, order[begin:end])
        begin = end
        for x, y in blocks_of(masks[chosen], outputs[chosen]):
            statistics.accumulate(x, y, settings.dtype, settings.device)
        sizes.append(statistics.rows)
        predictions.append([_cross_predict(statistics, halves[1 - k], halves[k], settings) for k in (0, 1)])
    rng = np.random.default_rng([seed, 2])
    resampled = [_score(halves, predictions, *_draw(halves, rng)) for _ in range(resamples)]
    t = outputs.shape[1]
    whole = _score(halves, predictions, [np.arange(half.masks.shape[1]) for half in halves], np.arange(t))
    return LearningCurve(np.array(sizes), whole, np.array(resampled))


def _held(
    masks: NDArray[np.bool_],
    outputs: NDArray[np.floating[Any]],
    subsets: NDArray[np.int64],
    part: NDArray[np.int64],
    settings: Settings,
) -> Held:
    rows = np.isin(subsets, part)
    return Held.of(np.packbits(masks[rows], axis=1), masks.shape[1], outputs[rows], subsets[rows], settings.dtype)


def _cross_predict(
    statistics: Statistics, chooser: Held, scored: Held, settings: Settings
) -> NDArray[np.floating[Any]]:
    """Return predictions (t, h) for `scored` at the lambdas that are best for `chooser`."""
    paths = walk_paths(statistics, None, chooser, settings, settings.patience)
    penalties = paths.penalties[np.arange(statistics.t), paths.best][:, None]
    return walk_paths(statistics, penalties, scored, settings, None, paths.columns).predictions


Draw = tuple[list[NDArray[np.int64]], NDArray[np.int64]]
"""Which held-out subsets of each half, and which queries."""


def _draw(halves: list[Held], rng: np.random.Generator) -> Draw:
    columns = [_again(half.masks.shape[1], rng) for half in halves]
    return columns, _again(len(halves[0].outputs), rng)


def _again(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    drawn: NDArray[np.int64] = rng.integers(0, count, size=count)
    return drawn


def _score(
    halves: list[Held],
    predictions: list[list[NDArray[np.floating[Any]]]],
    columns: list[NDArray[np.int64]],
    queries: NDArray[np.int64],
) -> Floats:
    """Return the mean correlation for every number of runs, (k,); a query whose prediction is constant counts as 0."""
    scores = []
    for sides in predictions:
        each = [
            spearman(half.outputs[np.ix_(queries, chosen)], side[np.ix_(queries, chosen)])
            for half, side, chosen in zip(halves, sides, columns, strict=True)
        ]
        scores.append(np.nan_to_num(np.array(each)).mean())
    return np.array(scores)
