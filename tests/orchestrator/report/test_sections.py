from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orchestrator.forecast.cost import forecast, keep_forecast
from orchestrator.forecast.trial_runs import TrialRuns
from orchestrator.report import sections
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain


@pytest.mark.parametrize(("truncation", "said"), [(None, 1), (0.01, 2)])
def test_time_is_compared_for_the_runs_that_were_trained_too(
    game: dict[str, Any],
    make_sweep: Callable[[Any], Any],
    inline_pool: Callable[[Any], Any],
    truncation: float | None,
    said: int,
) -> None:
    game["measures"] = ["saturating"]
    game["task"]["arguments"] = {"n": 24}
    game["designs"] = {
        "everything": {"kind": "full"},
        "orders": {"kind": "permutations", "permutations": 4, "truncation": truncation, "block": 4},
    }
    sweep = make_sweep({**game, "pack": 24})
    with prepare(sweep) as store:
        keep_forecast(sweep, forecast(sweep, sweep.plans, TrialRuns((12, 24), (0.1, 0.1)), 0))
        retrain(sweep, store, pool=inline_pool(sweep))
        told = [one for one in sections.expectations(sweep, store, {}) if one.unit == "time" and not np.isnan(one.low)]
        done = sum(int((store.states(name) == 1).sum()) for name in store.designs)
    assert len(told) == said
    assert told[-1].forecast == pytest.approx(told[0].forecast * done / 97)
    assert told[-1].low < told[-1].forecast < told[-1].high
    assert told[-1].fact == told[0].fact
