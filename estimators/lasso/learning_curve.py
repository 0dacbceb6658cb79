"""The learning curve: what held-out correlation so many runs bring, and what more of them would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.findings import LearningCurve
from estimators.lasso.collect import Held, Split, blocks_of, mean_of_finite
from estimators.lasso.diagnostics import resampled_spearman
from estimators.lasso.selection import walk_paths
from estimators.lasso.settings import Settings
from estimators.lasso.statistics import Floats, Statistics
from estimators.lasso.threads import spread
from estimators.scores.bootstrap import Resamples
from workers.errors import DataError

FRACTIONS = (0.125, 0.25, 0.5, 0.75, 1.0)
"""Parts of the fitting subsets that are measured, nested in each other."""
FEWEST_HELD = 20
RESAMPLES = 200
AHEAD = 9
"""Points of the continued curve that are kept, from the last measured one to as many runs again."""
RATES = np.linspace(0.25, 1.5, 26)
"""Exponents g of the curve's 1/m**g that are tried; 1 is the rate of a regression whose columns are known."""


@dataclass(frozen=True)
class ResampledCurve:
    """Held-out Spearman correlation, mean over queries, against the number of fitting runs, with what continues it."""

    runs: NDArray[np.int64]
    """(k,) fitting runs."""
    correlations: Floats
    """(k,)"""
    resampled: Floats
    """(B, k) the same with held-out subsets and queries drawn again."""
    queries: int = 0
    """Queries it is of."""
    total: int = 0
    """Runs of the design, those held out included: what an attribution is fitted on in the end."""

    def extrapolate(self, runs: int, level: float = 0.95) -> tuple[float, float, float]:
        """Return the correlation expected from so many fitting runs, and an interval around it.

        The curve is 1/r**2 = a + b/m**g: a regression's squared correlation is c**2 m / (m + k) when its error falls as 1/m,
        and g lets the rate differ. The interval holds the resampled points' curves, with every g that fits about as well as the
        best one, so that it is wide where the points do not determine the form.
        """
        return self._interval(lambda correlations: self._fits(correlations, runs), level)

    def gain(self, more: int, level: float = 0.95) -> tuple[float, float, float]:
        """Return by which factor `more` runs of the design raise the correlation of an attribution, and an interval around it.

        The noise of the outputs takes the same part off a correlation however many runs it was fitted on, so that the factor
        holds for outputs that are averaged over more seeds, too.
        """

        def grown(correlations: Floats) -> tuple[Floats, Floats]:
            losses, values = self._fits(correlations, self.total + more)
            return losses, values / self._fits(correlations, self.total)[1]

        return self._interval(grown, level)

    def _interval(
        self, quantity: Callable[[Floats], tuple[Floats, Floats]], level: float
    ) -> tuple[float, float, float]:
        """Return a quantity of the curve, and the interval of it over the resampled curves and their plausible exponents.

        `quantity` takes samples (B, k) and returns the losses and the values of every exponent, (B, g) each.
        """
        losses, values = quantity(self.correlations[None])
        central = float(values[0, losses[0].argmin()])
        losses, values = quantity(self.resampled)
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

    @property
    def more(self) -> int:
        """As many runs as the largest fit had, rounded to one digit: how far a curve is worth continuing."""
        digits = 10 ** (len(str(self.runs[-1])) - 1)
        return int(round(self.runs[-1] / digits) * digits)

    def told(self) -> LearningCurve:
        """Return points, ceiling and what about as many runs again would bring."""
        ahead = np.linspace(self.runs[-1], self.runs[-1] + self.more, AHEAD).round().astype(int)
        return LearningCurve(
            self.queries,
            self.runs,
            np.stack([self.correlations, *np.quantile(self.resampled, [0.025, 0.975], axis=0)]),
            ahead,
            np.array([self.extrapolate(int(runs)) for runs in ahead]).T,
            self.ceiling(),
            self.more,
            self.gain(self.more),
            self.sentence(self.more),
        )

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


def learning_curve(
    masks: NDArray[np.bool_],
    outputs: NDArray[np.floating[Any]],
    subsets: NDArray[np.int64],
    settings: Settings,
    seed: int,
    fractions: tuple[float, ...] = FRACTIONS,
    resamples: int = RESAMPLES,
) -> ResampledCurve:
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
    scores = _score(halves, predictions, resamples, np.random.default_rng([seed, 2]), settings)
    # a resample repeats subsets, which lowers rank correlations a little: the mean is put back where it belongs
    resampled = scores[1:] + scores[0] - scores[1:].mean(0)
    return ResampledCurve(np.array(sizes), scores[0], resampled, outputs.shape[1], len(subsets))


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


def _score(
    halves: list[Held],
    predictions: list[list[NDArray[np.floating[Any]]]],
    resamples: int,
    rng: np.random.Generator,
    settings: Settings,
) -> Floats:
    """Return the mean correlation for every number of runs, (1 + B, k): of the data, then of resamples of subsets and queries.

    A query whose prediction is constant counts as 0.
    """
    t = len(halves[0].outputs)
    drawn = [Resamples.draw(half.masks.shape[1], t, resamples, int(rng.integers(2**63))) for half in halves]
    queries = drawn[0].queries  # of both halves: they are of the same queries

    def mean(which: int) -> Floats:
        size, side = divmod(which, len(halves))
        values = resampled_spearman(halves[side].outputs, predictions[size][side], drawn[side].rows)
        means: Floats = (values * queries).sum(1) / queries.shape[1]
        return means

    means = np.array(spread(mean, range(len(predictions) * len(halves)), settings.threads))
    scores: Floats = means.reshape(len(predictions), len(halves), -1).mean(1).T
    return scores
