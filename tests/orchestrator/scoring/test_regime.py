import math
from dataclasses import replace

import pandas as pd
import pytest

from orchestrator.scoring.ranking import tables
from orchestrator.scoring.regime import percent_kept, regime_of
from orchestrator.scoring.table import ScoreRow, as_rows, as_table
from orchestrator.scoring.wording import stands_on

ROW = ScoreRow("a", "lds", 0.5, 0.4, 0.6, 0.7, "margin", "heldout", 200, 1000, 3, 1.0, 1.0, alpha=0.5, order="own")


@pytest.mark.parametrize(
    ("alpha", "said"),
    [
        (0.5, "50%"),
        (0.5004, "50%"),
        (0.1, "10%"),
        (0.015, "1.5%"),
        (0.99, "99%"),
        (0.999, "99.9%"),
        (1 - 1 / 1797, "99.944%"),
        (1.0, "100%"),
        (math.nan, ""),
    ],
)
def test_a_fraction_is_said_with_two_digits_of_what_is_kept_or_dropped(alpha: float, said: str) -> None:
    assert percent_kept(alpha) == said


def test_rows_of_different_regimes_are_never_in_one_table() -> None:
    others = [
        replace(ROW, estimator="b", value=0.9, alpha=0.99),
        replace(ROW, estimator="c", value=0.8, order="shared"),
        replace(ROW, estimator="d", value=0.7, alpha=math.nan, order=""),
        replace(ROW, estimator="e", value=0.6, metric="loo_correlation"),
        replace(ROW, estimator="f", value=0.1, alpha=0.5004),
        replace(ROW, estimator="g", value=0.2, alpha=math.nan, order=""),
    ]
    found = tables([ROW, *others])
    assert [(table.quantity.name, [row.estimator for row in table.rows]) for table in found] == [
        ("lds", ["b"]),
        ("lds", ["c"]),
        ("lds", ["d", "g"]),
        ("lds", ["a", "f"]),
        ("loo_correlation", ["e"]),
    ]
    assert all(len({regime_of(row) for row in table.rows}) == 1 for table in found)


def test_a_table_says_what_it_stands_on_once() -> None:
    assert stands_on([ROW, replace(ROW, estimator="b", measure="loss")]) == [
        "heldout: 50% of the examples kept, own order of batches, 1,000 subsets, 3 seeds each, 200 queries"
    ]
    assert stands_on([replace(ROW, alpha=math.nan, order="", seeds=1)]) == [
        "heldout: regime unknown, 1,000 subsets, 1 seed each, 200 queries"
    ]
    assert stands_on([replace(ROW, alpha=math.nan, order="", design="", subsets=0, seeds=0)]) == ["200 queries"]


def test_what_is_left_out_is_said() -> None:
    row = replace(
        ROW, subsets_left_out=1200.0, subsets_with_fewer_seeds=2.0, subsets_not_compared=3.0, constant_predictions=3.0
    )
    other = replace(row, estimator="b", constant_predictions=0.0, queries_left_out=4.0)
    assert stands_on([row, other]) == [
        "heldout: 50% of the examples kept, own order of batches, 1,000 subsets, 3 seeds each, 200 queries, "
        "1,200 subsets without a finished run, 2 subsets with fewer seeds, 3 subsets not compared",
        "queries left out: 4 (b)",
        "queries with constant predictions: 3 (a)",
    ]
    assert stands_on([replace(ROW, constant_outputs=5.0), replace(ROW, constant_outputs=5.0, estimator="b")])[1:] == [
        "queries with constant outputs: 5 (margin)"
    ]


def test_rows_of_an_earlier_version_beside_ours_are_of_an_unknown_regime() -> None:
    earlier = as_table([ROW]).drop(columns=["alpha", "order", "subsets_left_out"])
    old, new = as_rows(pd.concat([earlier, as_table([ROW])]))
    assert regime_of(old) == ("", "")
    assert regime_of(new) == ("50%", "own")
