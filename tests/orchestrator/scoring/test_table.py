import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from estimators.scores import Estimate, Score
from orchestrator.scoring.table import Judged, ScoreRow, as_rows, as_table, read_scores, write_scores
from workers.errors import StoreError

ROW = ScoreRow("trak", "lds", 0.25, 0.125, 0.375, 0.5, "margin", "heldout", 8, 100, 3, 20.5, 1.5)
COLUMNS = (
    *("estimator", "metric", "value", "low", "high", "ceiling", "measure", "design"),
    *("queries", "subsets", "seeds", "train_seconds", "attribute_seconds"),
)
LATER = (
    *("ceiling_low", "ceiling_high", "share", "share_low", "share_high"),
    *("behind_best", "behind_best_low", "behind_best_high"),
    *("ahead_of_next", "ahead_of_next_low", "ahead_of_next_high"),
    *("alpha", "order", "subsets_left_out", "subsets_with_fewer_seeds", "subsets_not_compared"),
    *("queries_left_out", "constant_predictions", "constant_outputs"),
    "attribution",
    "fitted_order",
    "tuned",
)
"""Columns that tables of earlier versions lack."""


def test_the_columns_of_the_file_and_their_types_are_the_published_ones(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.parquet", [ROW])
    schema = pq.read_schema(tmp_path / "scores.parquet")
    assert tuple(schema.names) == COLUMNS + LATER
    kinds = dict.fromkeys(
        ("estimator", "metric", "measure", "design", "order", "attribution", "fitted_order", "tuned"), "string"
    )
    kinds |= {"queries": "int64", "subsets": "int64", "seeds": "int64"}
    for name in COLUMNS + LATER:
        assert str(schema.field(name).type).removeprefix("large_") == kinds.get(name, "double"), name


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [ROW, replace(ROW, estimator="random", ceiling=math.nan, low=math.nan, subsets=0)]
    assert write_scores(tmp_path / "scores.parquet", rows).equals(as_table(rows))
    first, second = as_rows(read_scores(tmp_path / "scores.parquet"))
    assert as_table([first]).equals(as_table([ROW]))
    assert math.isnan(second.ceiling)
    assert as_table([second]).equals(as_table([rows[1]]))
    columns = [field for field in fields(ScoreRow) if field.name != "resampled"]
    assert [type(getattr(first, field.name)).__name__ for field in columns] == [str(field.type) for field in columns]
    assert first.resampled is None


def test_a_row_has_what_was_judged_and_what_was_found() -> None:
    judged = Judged("trak", np.zeros((4, 8)), "margin", 20.5, 1.5, ("fit",))
    found = Score("lds", 0.25, 0.125, 0.375, 0.5, np.zeros(8), queries=8, subsets=100, seeds=3)
    assert as_table([ScoreRow.of(judged, found, "lds", "heldout")]).equals(as_table([ROW]))
    found = replace(found, ceiling_low=0.4, ceiling_high=0.6, share=Estimate(0.5, 0.3, 0.7))
    row = ScoreRow.of(judged, found, "lds", "heldout")
    assert (row.ceiling_low, row.ceiling_high) == (0.4, 0.6)
    assert (row.share, row.share_low, row.share_high) == (0.5, 0.3, 0.7)
    assert not row.nothing_to_find
    assert replace(row, ceiling_low=0.0).nothing_to_find


def test_a_table_of_an_earlier_version_is_read_with_unknowns(tmp_path: Path) -> None:
    as_table([ROW]).drop(columns=list(LATER)).to_parquet(tmp_path / "scores.parquet")
    (row,) = as_rows(read_scores(tmp_path / "scores.parquet"))
    assert as_table([row]).equals(as_table([ROW]))
    assert not row.nothing_to_find


def test_where_there_is_no_file_there_are_no_scores(tmp_path: Path) -> None:
    table = read_scores(tmp_path / "scores.parquet")
    assert (len(table), tuple(table.columns)) == (0, COLUMNS + LATER)
    assert as_rows(table) == ()


def test_what_is_no_table_of_scores_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(
        StoreError, match=r"scores\.parquet is damaged \(.+\): delete it, and `counterfactory score`"
    ) as refused:
        read_scores(path)
    assert "\n" not in str(refused.value)
    as_table([ROW]).drop(columns=["low", "seeds"]).to_parquet(path)
    with pytest.raises(StoreError, match=r"lacks the columns low, seeds\)"):
        read_scores(path)


def test_a_missing_count_is_zero_and_a_missing_number_is_not_a_number() -> None:
    (row,) = as_rows(pd.DataFrame([dict.fromkeys(COLUMNS)]).assign(estimator="a", metric="b", measure="c", design=""))
    assert (row.queries, row.subsets, row.seeds) == (0, 0, 0)
    assert all(math.isnan(one) for one in (row.value, row.low, row.high, row.ceiling, row.train_seconds))
