"""The pages of docs/leaderboards and the README's picture, drawn from the sweeps that they stand for; their numbers are kept.

    python benchmarks/leaderboard.py runs/digits ...   keeps the numbers of these sweeps in docs/leaderboards/NAME.json, draws all
    python benchmarks/leaderboard.py                   draws all again from the numbers that are kept

The picture is the terminal's leaderboard, whatever columns it has. A page adds by how much an estimator is behind the best, with
the interval of that difference (from the same subsets and queries).
"""

import argparse
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from orchestrator.cli.tables import leaderboard, records
from orchestrator.config.shipped import description, shipped
from orchestrator.scoring.ranking import tables
from orchestrator.scoring.table import ScoreRow, as_rows, read_scores
from orchestrator.scoring.wording import ceilings, stands_on
from orchestrator.store.ledger import DONE
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.wording import duration

DOCS = Path(__file__).resolve().parent.parent / "docs"
PICTURED = "digits"
"""The sweep whose leaderboard the README shows."""
WIDTH = 120


def numbers_of(folder: Path) -> dict[str, Any]:
    """Return what is shown and said of a sweep. Raises ConfigError, StoreError."""
    sweep = Sweep.at(folder)
    scores = records(read_scores(sweep.paths.scores))
    with RunStore.open(sweep.paths) as store:
        runs = sum(int((store.states(name) == DONE).sum()) for name in store.designs)
        return {
            "sweep": sweep.config.name,
            "n": store.n,
            "t": store.t,
            "runs": runs,
            "scores": scores,
        }


def table_of(scores: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the kept scores as a table; what JSON has as null is NaN where the others are numbers."""
    table = pd.DataFrame(scores)
    numeric = [name for name in table if not table[name].map(lambda value: isinstance(value, str | bool)).any()]
    return table.astype({name: float for name in numeric if table[name].isna().any()})


def picture(numbers: dict[str, Any]) -> str:
    """Return the terminal's leaderboard as SVG, its text as text."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(leaderboard(table_of(numbers["scores"])))
    return console.export_svg(title=f"counterfactory run {numbers['sweep']}", unique_id="leaderboard")


def page(numbers: dict[str, Any]) -> str:
    """Return the leaderboard as a page in Markdown."""
    return "\n".join(_lines(numbers)) + "\n"


def _lines(numbers: dict[str, Any]) -> Iterator[str]:
    name = numbers["sweep"]
    yield f"# {name}\n"
    if name in shipped():
        yield f"{description(shipped()[name])}\n"
    runs, n, t = (f"{numbers[key]:,}" for key in ("runs", "n", "t"))
    yield f"`counterfactory run {name} --out runs/{name}` trains {runs} models on subsets of {n} examples, has every estimator"
    yield f"attribute what they say about {t} queries, and judges it."
    for table in tables(as_rows(table_of(numbers["scores"]))):
        shown = _columns(table.rows)
        yield f"\n## {table.quantity.name}\n\n{table.quantity.title}\n"
        yield f"| {' | '.join(shown)} |"
        yield f"| --- | {' | '.join(['---:'] * (len(shown) - 1))} |"
        yield from (f"| {' | '.join(cell(row) for cell in shown.values())} |" for row in table.rows)
        yield ""
        yield from (f"- {line}" for line in (*stands_on(table.rows), *ceilings(table.quantity, table.rows)))
    yield f"\nDrawn by `python benchmarks/leaderboard.py runs/{name}`."


def _columns(rows: Sequence[ScoreRow]) -> dict[str, Callable[[ScoreRow], str]]:
    """Return the columns that a table has something in, and how a cell of each is written."""
    columns: dict[str, Callable[[ScoreRow], str]] = {
        "estimator": lambda row: row.estimator,
        "value": lambda row: _number(row.value),
        "95% interval": lambda row: _interval(row.low, row.high),
        "behind the best": lambda row: _with_interval(row.behind_best, row.behind_best_low, row.behind_best_high),
        "of the ceiling": lambda row: _number(row.share) if not row.nothing_to_find else "",
        "trained": lambda row: duration(row.train_seconds),
        "attributed": lambda row: duration(row.attribute_seconds),
    }
    return {name: cell for name, cell in columns.items() if any(cell(row) for row in rows)}


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else ""


def _interval(low: float, high: float) -> str:
    return f"{_number(low)} to {_number(high)}" if math.isfinite(low) and math.isfinite(high) else ""


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{_number(value)} ({_interval(low, high)})" if math.isfinite(low) else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "sweeps", type=Path, nargs="*", help="folders of finished sweeps; without any, the numbers kept"
    )
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of leaderboards/ and leaderboard.svg")
    asked = parser.parse_args()
    folder = asked.docs / "leaderboards"
    folder.mkdir(parents=True, exist_ok=True)
    for one in asked.sweeps:
        numbers = numbers_of(one)
        (folder / f"{numbers['sweep']}.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    for kept in sorted(folder.glob("*.json")):
        numbers = json.loads(kept.read_text(encoding="utf-8"))
        kept.with_suffix(".md").write_text(page(numbers), encoding="utf-8")
        print(f"{kept.with_suffix('.md')}: drawn from {kept}")
        if kept.stem == PICTURED:
            (asked.docs / "leaderboard.svg").write_text(picture(numbers), encoding="utf-8")


if __name__ == "__main__":
    main()
