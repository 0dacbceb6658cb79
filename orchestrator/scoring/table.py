"""The table of scores, one row an (estimator, metric): what a row is, and how the table is written and read."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.durable import write_atomically
from orchestrator.store.parquet_files import read_parquet
from orchestrator.store.side_files import read_file
from workers.errors import DataError

if TYPE_CHECKING:  # a table is read and shown without the code that computes scores, and named without pandas
    import pandas as pd

    from estimators.scores import Score


@dataclass(frozen=True)
class Judged:
    """One attribution on its way to be scored."""

    label: str
    values: NDArray[np.floating]
    """(n, t)"""
    measure: str
    train_seconds: float
    """Time it took to train the models it used, summed over them; NaN where nobody knows."""
    attribute_seconds: float
    """Time the estimator took; NaN where nobody knows."""
    fitted_on: tuple[str, ...]
    """Designs whose runs it was computed from."""
    utility: NDArray[np.floating] | None = None
    """(n,)"""
    claims_units: bool = False
    """Whether the values claim to be in units of the measure."""


@dataclass(frozen=True)
class ScoreRow:
    """One number that judges one attribution. The fields but `resampled` are the columns of scores.parquet, in their order."""

    estimator: str
    """Label of the attribution; `retraining` where the runs themselves are judged, `random` for a random order."""
    metric: str
    """Name of the quantity, one of those that a registered metric gives."""
    value: float
    low: float
    """Lower end of the 95% interval; NaN where there is none."""
    high: float
    """Upper end of the 95% interval; NaN where there is none."""
    ceiling: float
    """What the noise of training lets anyone reach; NaN where that is unknown or means nothing."""
    measure: str
    """Measured output that the attribution is about."""
    design: str
    """Design whose runs judged it; empty where no runs did."""
    queries: int
    """Queries that the value is computed on."""
    subsets: int
    """Held-out subsets, or left-out examples, that it is computed on; 0 where there are none."""
    seeds: int
    """Seeds of each of them; 0 where there are none, or nobody knows."""
    train_seconds: float
    """Time it took to train the models that were used, summed over them; NaN where nobody knows."""
    attribute_seconds: float
    """Time the estimator took; NaN where nobody knows."""

    ceiling_low: float = math.nan
    """Lower end of the ceiling's 95% interval; 0 where there was nothing to find, NaN where it is unknown."""
    ceiling_high: float = math.nan
    """Upper end of the ceiling's 95% interval."""
    share: float = math.nan
    """Value as a share of the ceiling; NaN where the ceiling is unknown or cannot be told from 0."""
    share_low: float = math.nan
    """Lower end of the share's 95% interval."""
    share_high: float = math.nan
    """Upper end of the share's 95% interval."""

    behind_best: float = math.nan
    """By how much it is worse than the best of its table; NaN for the best itself, and where nobody compared them."""
    behind_best_low: float = math.nan
    """Lower end of the 95% interval of that difference, from the same resamples of both: above 0 it is told from the best."""
    behind_best_high: float = math.nan
    """Upper end of that interval."""
    ahead_of_next: float = math.nan
    """By how much it is better than the next one of its table; NaN for the last, and where nobody compared them."""
    ahead_of_next_low: float = math.nan
    """Lower end of the 95% interval of that difference: above 0 it is told from the next."""
    ahead_of_next_high: float = math.nan
    """Upper end of that interval."""

    alpha: float = math.nan
    """Regime: the fraction of the examples that a subset keeps; NaN where that is unknown, or no one number."""
    order: str = ""
    """Regime: whose batches a run takes, `own` (its subset's) or `shared` (those of the full set); empty where unknown."""
    subsets_left_out: float = math.nan
    """Subsets (or left-out examples) that were planned and have no finished run; NaN where nobody counted, as in those below."""
    subsets_with_fewer_seeds: float = math.nan
    """Subsets with fewer finished runs than `seeds`."""
    subsets_not_compared: float = math.nan
    """Subsets with finished runs that a seed check leaves out: they have fewer than `seeds`, or its design alone has any."""
    queries_left_out: float = math.nan
    """Queries of the sweep that the value is not computed on."""
    constant_predictions: float = math.nan
    """Queries of which the attribution predicts the same for all subsets: a rank correlation counts them as 0."""
    constant_outputs: float = math.nan
    """Queries whose measured output is the same for all subsets: a rank correlation counts them as 0."""
    attribution: str = ""
    """Hash of the attribution that was judged; empty where none of the sweep's was, or nobody knows."""
    fitted_order: str = ""
    """Whose batches the runs take that the attribution was fitted on, as in `order`; empty where it was fitted on none."""
    tuned: str = ""
    """The options that fitting runs chose for the attribution, with their values; empty where they chose none."""
    resampled: NDArray[np.float64] | None = field(default=None, repr=False, compare=False, metadata={"column": False})
    """(1 + b,) the value in the data and in every resample, for comparing rows; no column, None where there are none."""

    @property
    def nothing_to_find(self) -> bool:
        """Whether the ceiling cannot be told from 0: the seeds of a subset agree no better than chance."""
        return self.ceiling_low <= 0

    @classmethod
    def of(cls, judged: Judged, found: Score, metric: str, design: str) -> ScoreRow:
        """Return the row of one attribution's score on the runs of a design."""
        return cls(
            estimator=judged.label,
            metric=metric,
            value=found.value,
            low=found.low,
            high=found.high,
            ceiling=found.ceiling,
            measure=judged.measure,
            design=design,
            queries=found.queries,
            subsets=found.subsets,
            seeds=found.seeds,
            train_seconds=judged.train_seconds,
            attribute_seconds=judged.attribute_seconds,
            ceiling_low=found.ceiling_low,
            ceiling_high=found.ceiling_high,
            share=found.share.value,
            share_low=found.share.low,
            share_high=found.share.high,
            **vars(found.basis),
            resampled=found.resampled,
        )


_COLUMNS = tuple(one for one in fields(ScoreRow) if one.metadata.get("column", True))
SCORE_COLUMNS = tuple(one.name for one in _COLUMNS)
"""Columns of the tidy score table."""
REQUIRED_COLUMNS = tuple(one.name for one in _COLUMNS if one.default is MISSING)
"""Those that no table of scores lacks; the others are unknown where an earlier version wrote the table."""


def as_table(rows: Iterable[ScoreRow]) -> pd.DataFrame:
    """Return the rows as a table."""
    import pandas as pd

    return pd.DataFrame([[getattr(row, name) for name in SCORE_COLUMNS] for row in rows], columns=SCORE_COLUMNS)


def as_rows(table: pd.DataFrame) -> tuple[ScoreRow, ...]:
    """Return a table's rows; what is missing is NaN, empty, or 0 where it is a count. Raises DataError without the columns."""
    refuse_other_columns(table.columns)
    return tuple(_row(record) for record in table.to_dict(orient="records"))


def refuse_other_columns(columns: Collection[Any]) -> None:
    """Raise DataError where a table of scores lacks columns; those beyond ours are nobody's harm."""
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        raise DataError(f"the score table lacks the columns {', '.join(missing)}")


def _row(record: Mapping[Hashable, Any]) -> ScoreRow:
    known = [one for one in _COLUMNS if one.name in record]
    return ScoreRow(**{one.name: _READ[str(one.type)](record[one.name]) for one in known})


def _is_missing(cell: Any) -> bool:
    if cell is None or isinstance(cell, float | int | str):
        return cell is None or cell != cell
    import pandas as pd  # whose NA it may be

    return bool(pd.isna(cell))


def _word(cell: Any) -> str:
    return "" if _is_missing(cell) else str(cell)


def _number(cell: Any) -> float:
    return math.nan if _is_missing(cell) else float(cell)


def _count(cell: Any) -> int:
    return 0 if _is_missing(cell) else int(cell)


_READ: Mapping[str, Callable[[Any], Any]] = {"str": _word, "float": _number, "int": _count}
"""Type of a field -> how a cell of its column is read."""


def write_scores(path: Path, rows: Iterable[ScoreRow]) -> pd.DataFrame:
    """Write scores.parquet at once and durably; return the table."""
    table = as_table(rows)
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_atomically(path, buffer.getvalue())
    return table


def read_scores(path: Path) -> pd.DataFrame:
    """Return the table that scores.parquet keeps, an empty one where there is no file; `as_rows` makes rows of it.

    Raises StoreError where the file cannot be read, or is no table of scores.
    """
    table = read_file(path, _REMEDY, _parsed)
    return as_table(()) if table is None else table


def read_score_rows(path: Path) -> tuple[ScoreRow, ...]:
    """Return the same as rows, without pandas, which takes its time. Raises as `read_scores` does."""
    return read_file(path, _REMEDY, _parsed_rows) or ()


_REMEDY = "delete it, and `counterfactory score` writes it anew"


def _parsed_rows(content: bytes) -> tuple[ScoreRow, ...]:
    table = read_parquet(content)
    refuse_other_columns(table.column_names)
    return tuple(_row(record) for record in table.to_pylist())


def _parsed(content: bytes) -> pd.DataFrame:
    table: pd.DataFrame = read_parquet(content).to_pandas()
    as_rows(table)
    return table
