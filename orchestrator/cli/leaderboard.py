"""The table of scores in the terminal: a table a quantity and regime, the best first, and below it what it stands on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from orchestrator.cli.console import shown
from orchestrator.scoring.metric import Quantity
from orchestrator.scoring.ranking import tables
from orchestrator.scoring.table import ScoreRow, as_rows
from orchestrator.scoring.wording import LEGEND, ceilings, from_best, from_next, is_compared, name_of, stands_on
from workers.wording import duration

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.scoring.suspects import Suspects


def leaderboard(scores: pd.DataFrame) -> RenderableType:
    """Return the scores, a table a quantity and regime in the metrics' order, the best first.

    With the built-in names it fits into 120 columns; where it does not, cells are folded and nothing is cut.
    """
    if scores.empty:
        return "no scores: the sweep has no finished scoring runs, and nothing else to judge by"
    parts: list[RenderableType] = ["[italic]Leaderboard[/]"]
    drawn_tables = tables(as_rows(scores))
    for table in drawn_tables:
        drawn, lines = table.quantity, table.rows
        title = drawn.name if drawn.title == drawn.name else f"{drawn.name}: {drawn.title}"
        parts.append(shown(title + " (lower is better)" * (drawn.better == "lower")))
        parts.append(_scores_of(drawn, lines))
        parts += [shown(line) for line in (*stands_on(lines), *ceilings(drawn, lines))]
        parts.append("")
    if any(is_compared(row) for table in drawn_tables for row in table.rows):
        parts.append(LEGEND)
    return Group(*parts)


def suspects_table(found: Suspects) -> RenderableType:
    """Return the examples that look mislabelled, the most suspicious first."""
    title = f"Suspects of {found.estimator} ({found.measure}): training examples that look mislabelled"
    table = Table(title=shown(title), title_justify="left", header_style="bold")
    for name in ("example", "suspicion"):
        table.add_column(name, justify="right")
    table.add_column("label", overflow="fold")
    if found.mislabelled is not None:
        table.add_column("mislabelled")
    for row, (example, number, label) in enumerate(zip(found.examples, found.suspicion, found.labels, strict=True)):
        said = [] if found.mislabelled is None else ["yes" if found.mislabelled[row] else "no"]
        table.add_row(str(example), f"{number:.3g}", "-" if label is None else shown(label), *said)
    return Group(table, *([found.verdict] if found.verdict else []))


def _scores_of(drawn: Quantity, lines: Sequence[ScoreRow]) -> Table:
    table = Table(header_style="bold")
    for name in ("estimator", "measure"):
        table.add_column(name, overflow="fold")
    compared = any(is_compared(row) for row in lines)
    has_shares = any(math.isfinite(row.share) for row in lines)  # the ceiling itself is said below the table
    limit = (("of ceiling" if has_shares else "ceiling"),) if drawn.has_ceiling else ()
    apart = ("best", "next") if compared else ()
    for name in ("value", "95% interval", *apart, *limit, "trained", "attributed"):
        table.add_column(name, justify="right", overflow="fold", no_wrap=name == "value")
    for row in lines:
        cells = [shown(name_of(row)), shown(row.measure), _number(row.value), _interval(row.low, row.high)]
        cells += [from_best(row), from_next(row)] if compared else []
        cells += [_share(row) if has_shares else _number(row.ceiling)] if limit else []
        table.add_row(*cells, _seconds(row.train_seconds), _seconds(row.attribute_seconds))
    return table


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _interval(low: float, high: float) -> str:
    return f"{_number(low)} to {_number(high)}" if math.isfinite(low) and math.isfinite(high) else "-"


def _share(row: ScoreRow) -> str:
    """Return the share of the ceiling with its interval, in percent."""
    if row.nothing_to_find or not math.isfinite(row.share):
        return "-"
    ends = f" ({row.share_low:.0%} to {row.share_high:.0%})" if math.isfinite(row.share_low) else ""
    return f"{row.share:.0%}{ends}"


def _seconds(value: float) -> str:
    return duration(value) if math.isfinite(value) else "-"
