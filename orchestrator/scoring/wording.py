"""What a table of scores says below itself, in the same words in the terminal, the report and a notebook."""

from __future__ import annotations

import math
from collections.abc import Iterable

from orchestrator.scoring.metric import Quantity
from orchestrator.scoring.regime import percent_kept
from orchestrator.scoring.table import ScoreRow

LEGEND = (
    "best, next: < told from the best, > told from the next, \u2248 not told apart "
    "(the 95% interval of the difference, from the same subsets and queries, holds 0)"
)
"""What the signs of `from_best` and `from_next` mean."""

TUNED = "(tuned)"
"""Mark of an estimator whose options fitting runs chose, rather than being its defaults or somebody's."""


def is_compared(row: ScoreRow) -> bool:
    """Whether the row's difference to another one is known."""
    return math.isfinite(row.behind_best_low) or math.isfinite(row.ahead_of_next_low)


def from_best(row: ScoreRow) -> str:
    """Return whether the row can be told from the best of its table: "<", or "\u2248" where not; "-" for the best itself."""
    return _told(row.behind_best_low, "<")


def from_next(row: ScoreRow) -> str:
    """Return whether the row can be told from the next: ">", or "\u2248" where not; "-" for the last."""
    return _told(row.ahead_of_next_low, ">")


def _told(low: float, sign: str) -> str:
    """Return the sign where the interval of a difference that is 0 or more lies above 0."""
    if not math.isfinite(low):
        return "-"
    return sign if low > 0 else "\u2248"


def stands_on(rows: Iterable[ScoreRow]) -> list[str]:
    """Return what the scores of one table are computed on: regime, subsets, seeds and queries, and what was left out of them."""
    rows = list(rows)
    lines = list(dict.fromkeys(_basis(row) for row in rows))
    for what, column in _COUNTED.items():
        by = "measure" if column == "constant_outputs" else "estimator"
        counts = {getattr(row, by): getattr(row, column) for row in rows if getattr(row, column) > 0}
        if counts:
            lines.append(f"{what}: {', '.join(f'{count:,.0f} ({name})' for name, count in counts.items())}")
    return lines + _fitted_elsewhere(rows) + _tuned(rows)


def name_of(row: ScoreRow) -> str:
    """Return what a table calls the row: its estimator, marked where its options were tuned."""
    return f"{row.estimator} {TUNED}" if row.tuned else row.estimator


def _tuned(rows: Iterable[ScoreRow]) -> list[str]:
    """Return a line for the options that fitting runs chose."""
    found = {row.estimator: row.tuned for row in rows if row.tuned}
    told = "; ".join(f"{name} ({what})" for name, what in found.items())
    return [f"{TUNED} options chosen by fitting runs: {told}"] if found else []


def _fitted_elsewhere(rows: Iterable[ScoreRow]) -> list[str]:
    """Return a line for what was fitted on runs of one order and is judged by those of the other."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.order and row.fitted_order and row.fitted_order != row.order:
            names = found.setdefault(f"fitted in {row.fitted_order} order and judged in {row.order} order", [])
            names += [] if row.estimator in names else [row.estimator]
    return [f"{what}, which are different quantities: {', '.join(names)}" for what, names in found.items()]


_COUNTED = {
    "queries left out": "queries_left_out",
    "queries with constant predictions": "constant_predictions",
    "queries with constant outputs": "constant_outputs",
}
"""What is counted query by query -> column."""


def _basis(row: ScoreRow) -> str:
    """Return one row's regime, its subsets, seeds and queries, and which subsets are missing."""
    kept = percent_kept(row.alpha)
    said = [f"{kept} of the examples kept" if kept else "", f"{row.order} order of batches" if row.order else ""]
    if row.subsets and not any(said):
        said = ["regime unknown"]
    said.append(f"{row.subsets:,} subsets" if row.subsets else "")
    said.append(f"{row.seeds} seed{'s' * (row.seeds != 1)} each" if row.seeds else "")
    said.append(f"{row.queries:,} queries" if row.queries else "")
    said.append(f"{row.subsets_left_out:,.0f} subsets without a finished run" if row.subsets_left_out > 0 else "")
    fewer = row.subsets_with_fewer_seeds
    said.append(f"{fewer:,.0f} subsets with fewer seeds" if fewer > 0 else "")
    said.append(f"{row.subsets_not_compared:,.0f} subsets not compared" if row.subsets_not_compared > 0 else "")
    line = ", ".join(one for one in said if one)
    return f"{row.design}: {line}" if row.design else line


def ceilings(shown: Quantity, rows: Iterable[ScoreRow]) -> list[str]:
    """Return a line a measure on the noise ceiling: its interval, that there was nothing to find, or what it takes to have one.

    Nothing is said of a ceiling without an interval, as tables of earlier versions have it.
    """
    if not shown.has_ceiling:
        return []
    measures = {row.measure: row for row in rows}
    return [line for row in measures.values() if (line := _ceiling(shown, row))]


def _ceiling(shown: Quantity, row: ScoreRow) -> str:
    if math.isnan(row.ceiling):
        return f"{row.measure}: no noise ceiling, which needs {shown.ceiling_needs}" if shown.ceiling_needs else ""
    if math.isnan(row.ceiling_low):
        return ""
    ends = f"95% interval {row.ceiling_low:.3f} to {row.ceiling_high:.3f}"
    if row.nothing_to_find:
        return (
            f"{row.measure}: nothing to find. The noise ceiling cannot be told from 0 ({ends}): "
            f"{shown.no_signal}. More seeds, or more subsets, may show more."
        )
    return f"{row.measure}: noise ceiling {row.ceiling:.3f}, {ends}"
