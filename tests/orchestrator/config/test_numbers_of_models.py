"""A list of numbers of models is an estimator each, named by it."""

from typing import Any

import pytest

from orchestrator.config.numbers_of_models import each_number_of_models


def test_every_number_is_a_section_of_its_own() -> None:
    given = {"trak": {"models": [1, 5], "damping": 2.0}, "mine": {"estimator": "tracin", "models": 3}, "random": {}}
    assert each_number_of_models(given) == {
        "trak_1": {"estimator": "trak", "models": 1, "damping": 2.0},
        "trak_5": {"estimator": "trak", "models": 5, "damping": 2.0},
        "mine": {"estimator": "tracin", "models": 3},
        "random": {},
    }
    assert each_number_of_models({"mine": {"estimator": "tracin", "models": (2,)}}) == {
        "mine_2": {"estimator": "tracin", "models": 2}
    }


@pytest.mark.parametrize("models", [[], [0], [1, 1], [True], ["2"], [1.5], [None]])
def test_another_list_is_refused(models: Any) -> None:
    with pytest.raises(ValueError, match=r"trak\.models: expected distinct whole numbers of at least 1, found \["):
        each_number_of_models({"trak": {"models": models}})


@pytest.mark.parametrize("order", [1, -1])
def test_a_label_that_is_there_already_is_refused(order: int) -> None:
    sections = {"trak": {"models": [1, 2]}, "trak_2": {"estimator": "tracin"}}
    with pytest.raises(ValueError, match="'trak_2' is there twice"):
        each_number_of_models(dict(list(sections.items())[::order]))


def test_a_configuration_takes_it(tiny: Any, make_sweep: Any) -> None:
    tiny["estimators"] = {"tracin": {"models": [1, 2]}, "influence": {"models": 2}}
    found = make_sweep(tiny).config.estimators
    assert {label: section.options.models for label, section in found.items()} == {
        "tracin_1": 1,
        "tracin_2": 2,
        "influence": 2,
    }
    assert found["tracin_1"].estimator == "tracin"
