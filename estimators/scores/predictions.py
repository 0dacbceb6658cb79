"""What an attribution predicts of held-out subsets, beside what was measured of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.evidence import Runs
from estimators.scores.basis import Basis, constant
from estimators.scores.external import judge_array
from estimators.scores.overlap import refuse_overlap
from workers.errors import DataError

_BLOCK = 1 << 24
_ROUND_OFF = 1e-12


@dataclass(frozen=True)
class Predictions:
    """What the scores of predictions compare, of s subsets and t queries."""

    predicted: NDArray[np.float64]
    """(s, t) sums of the attributions of a subset's examples."""
    measured: NDArray[np.float64]
    """(s, t) outputs, averaged over each subset's seeds."""
    basis: Basis
    """What they stand on."""

    @classmethod
    def of(
        cls,
        tau: ArrayLike,
        runs: Runs,
        score: str,
        *,
        fitted_masks: NDArray[np.bool_] | None = None,
        planned: int | None = None,
    ) -> Predictions:
        """Return those of `tau` (n, t) on held-out runs, given how many subsets were planned.

        Raises DataError if `tau` is not a finite (n, t) array, if there are fewer than the 2 subsets that the `score` needs, or
        if any of them is among `fitted_masks` (k, n).
        """
        values = judge_array(tau, runs.masks.shape[1], runs.outputs.shape[1])
        if fitted_masks is not None:
            refuse_overlap(fitted_masks, runs.masks)
        masks, measured = runs.means()
        if len(masks) < 2:
            raise DataError(f"{score} needs at least 2 subsets, {runs.design!r} has {len(masks)} with a finished run")
        predicted = predict(masks, values)
        basis = replace(
            Basis.of(runs, planned),
            queries_left_out=0,
            constant_predictions=constant(predicted),
            constant_outputs=constant(measured),
        )
        return cls(predicted, measured, basis)


def predict(masks: NDArray[np.bool_], tau: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return `masks @ tau` (s, t) in float64, for masks (s, n) and tau (n, t).

    A column that varies by no more than round-off is made exactly constant: its order would be that of rounding errors.
    """
    exact = np.asarray(tau, dtype=np.float64)
    step = max(1, _BLOCK // max(1, masks.shape[1]))
    parts = [masks[start : start + step].astype(np.float64) @ exact for start in range(0, len(masks), step)]
    predicted = np.concatenate(parts)
    flat = np.ptp(predicted, axis=0) <= _ROUND_OFF * np.abs(predicted).max(axis=0)
    predicted[:, flat] = 0
    return predicted
