from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.forecast.cost import forecast, keep_forecast
from orchestrator.forecast.trial_runs import TrialRuns
from orchestrator.report import sections
from orchestrator.stages.attribute import attribute
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.store.attributions import Attributes, read_attribution


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


@pytest.mark.parametrize("share", ["example", "group"])
def test_the_measured_error_of_groups_is_that_of_their_effects_whatever_their_values_are(
    game: dict[str, Any],
    make_sweep: Callable[[Any], Any],
    inline_pool: Callable[[Any], Any],
    tmp_path: Path,
    share: str,
) -> None:
    np.save(tmp_path / "groups.npy", np.repeat([0, 1, 2], [1, 3, 8]))
    game["task"]["arguments"] = {"n": 12, "noise": 0.5}
    game["designs"] = {
        "full": {"kind": "full", "seeds": 4},
        "out": {"kind": "leave_group_out", "by": "groups.npy", "seeds": 4},
    }
    game["estimators"] = {"groups": {"share": share}}
    sweep = make_sweep({**game, "folder": str(tmp_path)})
    with prepare(sweep) as store:
        expected = forecast(sweep, sweep.plans, TrialRuns((3, 6), (0.1, 0.1)), 0)
        designs = tuple(replace(one, standard_error=0.25) for one in expected.designs)
        keep_forecast(sweep, replace(expected, designs=designs))
        retrain(sweep, store, pool=inline_pool(sweep))
        attribute(sweep, store)
        kept = read_attribution(sweep.paths, "groups")
        told = sections.expectations(sweep, store, {"groups": kept})
        full, out = store.outputs("full", "worth"), store.outputs("out", "worth").reshape(3, 4, -1)
    errors = (full - out).std(axis=1, ddof=1) / 2
    (error,) = [one.fact for one in told if one.what == "out: standard error of a value"]
    assert error == pytest.approx(errors.mean(), rel=1e-4)


def test_a_curve_is_what_differs_in_the_number_of_models_alone() -> None:
    def of(estimator: str, measure: str = "margin", needs: tuple[str, ...] = ("checkpoints",), **options: Any) -> Any:
        return Attributes(estimator=estimator, measure=measure, needs=needs, options=options)

    found = sections.curves(
        {
            "trak_1": of("trak", models=1, damping=1.0),
            "all": of("trak", models=None, damping=1.0),
            "damped": of("trak", models=1, damping=2.0),
            "of_loss": of("trak", "loss", models=1, damping=1.0),
            "tracin": of("tracin", models=1, damping=1.0),
            "once": of("datamodel", needs=("subsets",)),
            "twice": of("datamodel", needs=("subsets",)),
        }
    )
    assert sorted(found) == ["all", "trak_1"]
    assert found["all"] == found["trak_1"]
