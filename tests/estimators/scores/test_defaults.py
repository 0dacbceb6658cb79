"""What all scores do unless told otherwise, so that those of one sweep can be compared without a word."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from estimators.scores import (
    auc,
    calibration,
    lds,
    loo_correlation,
    noise_ceiling,
    seed_check,
    spread_ceiling,
    spread_lds,
)
from estimators.scores.bootstrap import difference
from estimators.scores.removal import removal_curve, removal_masks
from tests.estimators.scores.simulations import additive_world, make_runs

TAU, MASKS, OUTPUTS = additive_world(s=8, n=6, t=3, seeds=6)
RUNS = make_runs(MASKS, OUTPUTS[:, :4])
CURVE = make_runs(removal_masks(np.arange(6.0), [0.0, 0.5], "best"), OUTPUTS[:2])

RESAMPLED: dict[str, Callable[..., Any]] = {
    "lds": lambda **options: lds(TAU, RUNS, **options),
    "spread_lds": lambda **options: spread_lds(TAU, RUNS, **options),
    "slope": lambda **options: calibration(TAU, RUNS, **options).slope,
    "loo": lambda **options: loo_correlation(TAU, OUTPUTS[:4, 0], np.arange(4), n=6, **options),
}
OTHERS: dict[str, Callable[..., Any]] = {
    "auc": lambda **options: auc(RUNS.outputs[:, 0], RUNS.masks[:, 0], **options),
    "difference": lambda **options: difference(OUTPUTS[:, 0, 0], OUTPUTS[:, 1, 0], **options),
    "noise_ceiling": lambda **options: noise_ceiling(RUNS, **options).estimate,
    "spread_ceiling": lambda **options: spread_ceiling(RUNS, **options).estimate,
    "removal_curve": lambda **options: removal_curve(CURVE, **options).area,
    "seed_check": lambda **options: seed_check(RUNS, make_runs(MASKS, OUTPUTS[:, 4:], design="again"), **options),
}


@pytest.mark.parametrize("name", RESAMPLED)
def test_intervals_are_95_percent_of_a_thousand_resamples_of_one_seed(name: str) -> None:
    found, told = RESAMPLED[name](), RESAMPLED[name](resamples=1000, seed=0, level=0.95)
    assert found.resampled.shape == (1001,)
    np.testing.assert_array_equal(found.resampled, told.resampled)
    assert (found.low, found.high) == (told.low, told.high)


@pytest.mark.parametrize("name", OTHERS)
def test_other_intervals_are_95_percent(name: str) -> None:
    assert OTHERS[name]() == OTHERS[name](level=0.95) != OTHERS[name](level=0.9)
