"""An example's effect on its own output, from whatever one has at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from estimators.scores import own_effects
from workers.errors import ConfigError, DataError
from workers.runs import Queries

VALUES = [[3, 0, 7], [1, 5, 8], [0, 2, 9], [4, 4, 4]]


@pytest.mark.parametrize(
    "values",
    [
        VALUES,
        np.array(VALUES, dtype=np.float16),
        np.array(VALUES, dtype=np.uint8),
        np.array(VALUES, dtype=">f8"),
        xr.DataArray(VALUES, dims=("example", "query")),
    ],
)
@pytest.mark.parametrize(
    "queries", [Queries("train", (0, 2, 1)), [0, 2, 1], (0.0, 2.0, 1.0), np.array([0, 2, 1], np.int8)]
)
def test_the_diagonal_is_picked_from_anything(values: Any, queries: Any) -> None:
    examples, effects = own_effects(values, queries)
    assert (examples.dtype, effects.dtype) == (np.int64, np.float64)
    assert examples.tolist() == [0, 2, 1]
    assert effects.tolist() == [3.0, 2.0, 8.0]


def test_all_training_examples_and_unknown_errors() -> None:
    square = np.full((3, 3), np.nan)
    examples, effects = own_effects(square, Queries("train"))
    assert examples.tolist() == [0, 1, 2]
    assert np.isnan(effects).all()


@pytest.mark.parametrize(
    ("values", "queries", "said"),
    [
        ([1, 2, 3], [0, 1, 2], r"values: expected shape \(n, t\), an example a row and a query a column, found \(3,\)"),
        ([[1, 2], [3]], [0, 1], r"values: expected rows of one length, an example each: \(n, t\)"),
        ([["a", "b"]], [0, 0], "values: expected real numbers, found <U1"),
        ([[1j]], [0], "values: expected real numbers, found complex128"),
        ([[]], [], r"values: expected shape \(n, t\).* found \(1, 0\)"),
        (VALUES, [0, 1], r"values: expected a column for each of the 2 queries, found shape \(4, 3\)"),
        (VALUES, Queries("train"), r"values: expected a column for each of the 4 queries, found shape \(4, 3\)"),
        (VALUES, [0, 1, 4], "queries: expected positions of training examples, 0 to 3, found 4"),
        (VALUES, [-1, 1, 2], "queries: expected positions of training examples, 0 to 3, found -1"),
        (
            VALUES,
            [0.5, 1, 2],
            r"queries: expected positions \(t,\) of training examples, found float64 of shape \(3,\)",
        ),
        (VALUES, "train", r"queries: expected positions \(t,\) of training examples, found <U5"),
    ],
)
def test_what_cannot_be_meant_is_one_line(values: Any, queries: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        own_effects(values, queries)
    assert "\n" not in str(refused.value)


def test_queries_that_are_no_training_examples_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs queries that are training examples"):
        own_effects(VALUES, Queries("task", (0, 1, 2)))
