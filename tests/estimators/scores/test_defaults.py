"""What all scores do unless told otherwise, so that those of one sweep can be compared without a word."""

from collections.abc import Callable
from inspect import signature
from typing import Any

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
from estimators.scores.removal import removal_curve

RESAMPLED = (lds, spread_lds, calibration, loo_correlation)
OTHERS = (auc, difference, noise_ceiling, removal_curve, seed_check, spread_ceiling)


@pytest.mark.parametrize("score", [*RESAMPLED, *OTHERS])
def test_intervals_are_95_percent_of_a_thousand_resamples_of_one_seed(score: Callable[..., Any]) -> None:
    defaults = {name: one.default for name, one in signature(score).parameters.items()}
    assert defaults["level"] == 0.95
    if score in RESAMPLED:
        assert (defaults["resamples"], defaults["seed"]) == (1000, 0)
