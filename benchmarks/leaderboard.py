"""The README's picture of a leaderboard, drawn from the sweep it stands for; its numbers are kept beside it.

    python benchmarks/leaderboard.py runs/digits    keeps the numbers of that sweep in docs/leaderboard.json, and draws them
    python benchmarks/leaderboard.py                draws docs/leaderboard.svg again from the numbers that are kept

The picture is the terminal's leaderboard, whatever columns it has.
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from orchestrator.cli.tables import leaderboard, records
from orchestrator.scoring.table import read_scores
from orchestrator.store.ledger import DONE
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH = 120


def numbers_of(folder: Path) -> dict[str, Any]:
    """Return what the picture shows and the README says of a sweep. Raises ConfigError, StoreError."""
    sweep = Sweep.at(folder)
    scores = records(read_scores(sweep.paths.scores))
    with RunStore.open(sweep.paths) as store:
        runs = sum(int((store.states(name) == DONE).sum()) for name in store.designs)
        return {"sweep": sweep.config.name, "n": store.n, "t": store.t, "runs": runs, "scores": scores}


def table_of(scores: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the kept scores as a table; what JSON has as null is NaN where the others are numbers."""
    table = pd.DataFrame(scores)
    numeric = [name for name in table if not table[name].map(lambda value: isinstance(value, str | bool)).any()]
    return table.astype({name: float for name in numeric if table[name].isna().any()})


def draw(numbers: dict[str, Any]) -> str:
    """Return the picture as SVG, its text as text."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(leaderboard(table_of(numbers["scores"])))
    return console.export_svg(title=f"counterfactory run {numbers['sweep']}", unique_id="leaderboard")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, nargs="?", help="a finished sweep's folder; without it, the numbers kept")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of leaderboard.json and leaderboard.svg")
    asked = parser.parse_args()
    kept = asked.docs / "leaderboard.json"
    if asked.sweep is not None:
        kept.write_text(json.dumps(numbers_of(asked.sweep), indent=1) + "\n", encoding="utf-8")
    picture = draw(json.loads(kept.read_text(encoding="utf-8")))
    (asked.docs / "leaderboard.svg").write_text(picture, encoding="utf-8")
    print(f"{asked.docs / 'leaderboard.svg'}: drawn from {kept}")


if __name__ == "__main__":
    main()
