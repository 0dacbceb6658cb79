"""What estimators of ours say of their own options, so that nobody else looks for options by name."""

from __future__ import annotations

import pytest

from estimators.registry import BUILT_IN, find


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_options_that_name_a_design_are_told(name: str) -> None:
    estimator = find(name)
    assert estimator.naming_designs == tuple(key for key in ("design", "full") if key in estimator.model_fields)


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_the_output_of_no_data_is_told_where_it_is_an_option(name: str) -> None:
    estimator = find(name)
    if "empty" in estimator.model_fields:
        assert estimator(empty=0.25).empty_output == 0.25
    assert estimator().empty_output is None
