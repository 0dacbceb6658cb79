"""`tune` is a grid over options of an estimator, each point of which is validated as if it were given."""

from typing import Any

import pytest

from orchestrator.config.grid import grid_of, points
from workers.errors import ConfigError


def test_points_are_all_combinations() -> None:
    grid = grid_of({"damping": [1, "auto"], "solver": ("cg", "exact", "lissa")}, {})
    found = list(points(grid))
    assert len(found) == 6
    assert found[:3] == [{"damping": 1, "solver": one} for one in ("cg", "exact", "lissa")]
    assert list(points(grid_of(None, {}))) == [{}]


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ([1], "tune: expected options"),
        ({}, "tune: expected options"),
        ({"damping": 0.1}, "tune.damping: expected a list of two values or more, found 0.1"),
        ({"damping": [0.1]}, "tune.damping: expected a list of two values or more"),
        ({"damping": [0.1, 0.2, 0.1]}, "tune.damping: 0.1 is there twice"),
        ({"models": [1, 2]}, "tune.models: is given beside as 3"),
        ({"a": list(range(11)), "b": list(range(10))}, "tune: makes 110 combinations, expected at most 100"),
    ],
)
def test_what_is_no_grid_is_refused(tune: Any, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        grid_of(tune, {"models": 3})
    assert message in str(refused.value)


def test_every_value_is_validated_with_the_file(tiny: Any, make_config: Any) -> None:
    tiny["estimators"] = {"influence": {"tune": {"damping": [0.1, -1]}}}
    with pytest.raises(ConfigError, match=r"tiny\.yaml: estimators\.influence.*greater than or equal to 0"):
        make_config(tiny)
    tiny["estimators"] = {"influence": {"tune": {"dampin": [0.1, 1]}}}
    with pytest.raises(ConfigError, match="dampin"):
        make_config(tiny)
    tiny["estimators"] = {"influence": {"tune_on": "fit"}}
    with pytest.raises(ConfigError, match="there is no `tune`"):
        make_config(tiny)


def test_a_resolved_configuration_says_the_grid_and_comes_back(tiny: Any, make_config: Any) -> None:
    tiny["estimators"] = {"influence": {"tune": {"damping": [0.1, "auto"]}, "tune_on": "fit"}, "random": {}}
    config = make_config(tiny)
    resolved = config.resolved()
    assert resolved["estimators"]["influence"]["tune"] == {"damping": [0.1, "auto"]}
    assert "damping" not in resolved["estimators"]["influence"]
    assert "tune" not in resolved["estimators"]["random"]
    again = make_config(resolved)
    assert again.estimators == config.estimators
    tiny["estimators"]["influence"]["tune"]["damping"][0] = 0.2
    assert make_config(tiny).estimators != config.estimators


def test_models_make_a_tuned_section_each(tiny: Any, make_config: Any) -> None:
    tiny["estimators"] = {"trak": {"models": [1, 2], "tune": {"damping": [0.1, 1]}}}
    found = make_config(tiny).estimators
    assert {label: len(one.candidates) for label, one in found.items()} == {"trak_1": 2, "trak_2": 2}


def test_values_that_stop_watches_are_not_tuned(tiny: Any, make_config: Any) -> None:
    tiny["estimators"] = {"datamodel": {"tune": {"folds": [3, 5]}}}
    tiny["stop"] = {"fit": {"when": "runs >= 10", "estimator": "datamodel"}}
    with pytest.raises(ConfigError, match=r"stop\.fit\.estimator: 'datamodel' is tuned"):
        make_config(tiny)
