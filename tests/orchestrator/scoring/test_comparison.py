import math
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.scoring.comparison import compare
from orchestrator.scoring.table import ScoreRow
from orchestrator.scoring.wording import from_best, from_next, is_compared

ROW = ScoreRow("a", "lds", 0.5, 0.4, 0.6, 0.7, "margin", "heldout", 8, 100, 3, 1.0, 1.0)


def row(estimator: str, value: float, apart: float = 0.0, **other: object) -> ScoreRow:
    """A row whose resamples go up and down by 0.2, as all others' do, and by `apart` on their own."""
    common = 0.2 * np.sin(np.arange(200))
    own = apart * np.cos(np.arange(200) * (1 + len(estimator)))
    resampled = value + np.append(0.0, common + own)
    return replace(
        ROW, estimator=estimator, value=value, low=value - 0.2, high=value + 0.2, resampled=resampled, **other
    )


def test_rows_whose_intervals_overlap_are_told_apart_by_the_same_resamples() -> None:
    best, second = compare([row("a", 0.5), row("b", 0.45)])
    assert second.high > best.value
    assert (second.behind_best, second.behind_best_low) == (pytest.approx(0.05), pytest.approx(0.05))
    assert (best.ahead_of_next, best.ahead_of_next_high) == (pytest.approx(0.05), pytest.approx(0.05))
    assert (from_best(second), from_next(best)) == ("<", ">")
    assert (from_best(best), from_next(second)) == ("-", "-")


def test_rows_that_differ_by_less_than_their_noise_are_not() -> None:
    best, second = compare([row("a", 0.5), row("bb", 0.45, apart=0.1)])
    assert second.behind_best_low < 0 < second.behind_best < second.behind_best_high
    assert (from_best(second), from_next(best)) == ("\u2248", "\u2248")


def test_each_row_is_compared_with_the_best_and_with_the_next_and_keeps_its_place() -> None:
    middle, last, best = compare([row("middle", 0.4), row("last", 0.1), row("best", 0.5)])
    assert [one.estimator for one in (middle, last, best)] == ["middle", "last", "best"]
    assert [one.behind_best for one in (best, middle, last)] == [
        pytest.approx(x, nan_ok=True) for x in (math.nan, 0.1, 0.4)
    ]
    assert [one.ahead_of_next for one in (best, middle, last)] == [
        pytest.approx(x, nan_ok=True) for x in (0.1, 0.3, math.nan)
    ]


def test_where_lower_is_better_the_lowest_is_the_best() -> None:
    low, high = compare([row("a", 0.2, metric="removal_best_area"), row("b", 0.6, metric="removal_best_area")])
    assert math.isnan(low.behind_best)
    assert (high.behind_best, low.ahead_of_next) == (pytest.approx(0.4), pytest.approx(0.4))


@pytest.mark.parametrize(
    "other",
    [
        {"design": "another"},
        {"subsets": 99},
        {"seeds": 2},
        {"queries": 7},
        {"alpha": 0.99},
        {"order": "shared"},
        {"metric": "loo_correlation"},
        {"resampled": None},
        {"resampled": np.zeros(5)},
    ],
)
def test_what_was_judged_by_something_else_is_not_compared(other: dict[str, object]) -> None:
    rows = compare([row("a", 0.5), replace(row("b", 0.4), **other)])
    assert not any(is_compared(one) for one in rows)


def test_a_quantity_that_has_no_good_end_has_no_best() -> None:
    assert not any(is_compared(one) for one in compare([row("a", 0.5, metric="mine"), row("b", 0.4, metric="mine")]))
