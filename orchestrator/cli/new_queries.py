"""What `attribute --queries` shows: the strongest training examples of every new query."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from orchestrator.cli.console import shown
from orchestrator.report.text import signed
from orchestrator.stages.new_queries import Answered
from workers.wording import duration

SHOWN = 5
"""Queries that the terminal shows; a file has all of them."""
WIDEST = 60
"""Characters of a text that it shows."""


def strongest_table(done: Answered, where: str) -> RenderableType:
    """Return the strongest examples of the first queries, and where the whole attribution is."""
    table = Table(
        title=f"{shown(done.queries)}: {shown(done.measure)} by {shown(done.estimator)}", title_justify="left"
    )
    table.add_column("query", justify="right")
    table.add_column("effect")
    table.add_column("example", justify="right")
    table.add_column("label")
    table.add_column("value", justify="right")
    texts = done.top["text"].notna().any()
    if texts:
        table.add_column("text")
    for row in done.top[done.top["query"] < SHOWN].to_dict(orient="records"):
        cells = [str(row["query"]), row["effect"], str(row["example"]), shown(row["label"] or ""), signed(row["value"])]
        table.add_row(*cells, *([shown(_short(row["text"]))] if texts else []))
    more = f", the first {SHOWN} are shown" if done.count > SHOWN else ""
    models = f"{done.models:,} model{'s' if done.models != 1 else ''}"
    line = f"{where}: {done.count:,} queries{more}, from {models}, {duration(done.seconds)}"
    return Group(table, shown(line))


def _short(text: object) -> str:
    words = " ".join(str(text or "").split())
    return words if len(words) <= WIDEST else f"{words[: WIDEST - 1]}…"
