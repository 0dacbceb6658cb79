"""What a notebook shows of scores and of a sweep: HTML fragments with a style of their own, no script, nothing to load.

Every rule of the style sheet is scoped to the fragment's class, so that the notebook around it stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from orchestrator.report import text
from orchestrator.report.page.shown_score import Scale, ShownScore, scale_of
from orchestrator.report.page.templates import resource, template
from orchestrator.scoring import wording
from orchestrator.scoring.metric import Quantity
from orchestrator.scoring.ranking import Table, tables
from orchestrator.scoring.table import ScoreRow, as_rows
from workers.wording import duration

Design = tuple[str, str, str, int, int, int]
"""Name, kind, purpose; runs done, failed and pending."""


@dataclass(frozen=True)
class Board:
    """All scores of one quantity in one regime."""

    quantity: Quantity
    scale: Scale
    lines: tuple[tuple[ScoreRow, ShownScore], ...]
    """Each row with its number, the best first."""
    compared: bool
    """Whether some rows say what they can be told from."""
    said: tuple[str, ...]
    """What the numbers stand on, and what is to be said of the noise ceiling."""


def scores_html(scores: pd.DataFrame) -> str:
    """Return the leaderboard with its bars, metric by metric. Raises DataError where the table lacks columns."""
    return template("notebook.html.j2").render(**_common(), sweep=None, **_shown(scores))


def sweep_html(name: str, folder: str, designs: Iterable[Design], scores: pd.DataFrame) -> str:
    """Return how far a sweep's designs are, and its leaderboard below. Raises DataError where the table lacks columns."""
    sweep = {"name": name, "folder": folder, "designs": [_design(design) for design in designs]}
    return template("notebook.html.j2").render(**_common(), sweep=sweep, **_shown(scores))


def _common() -> dict[str, object]:
    return {"css": Markup(resource("notebook.css")), "text": text, "duration": duration, "said": wording}


def _design(design: Design) -> dict[str, object]:
    name, kind, purpose, done, failed, pending = design
    runs = done + failed + pending
    return {
        "name": name,
        "kind": kind,
        "purpose": purpose,
        "done": done,
        "failed": failed,
        "pending": pending,
        "width": f"{100 * done / runs if runs else 0:.2f}%",
        "lost": f"{100 * failed / runs if runs else 0:.2f}%",
    }


def _shown(scores: pd.DataFrame) -> dict[str, object]:
    """Return the tables of scores, and which of them are stale, as `OpenedSweep.scores` says."""
    return {"boards": _boards(scores), "stale": scores.attrs.get("stale", {})}


def _boards(scores: pd.DataFrame) -> list[Board]:
    return [_board(table) for table in tables(as_rows(scores))]


def _board(table: Table) -> Board:
    lines = tuple((row, ShownScore.of(row)) for row in table.rows)
    return Board(
        table.quantity,
        scale_of(shown for _, shown in lines),
        lines,
        any(wording.is_compared(row) for row in table.rows),
        (*wording.stands_on(table.rows), *wording.ceilings(table.quantity, table.rows)),
    )
