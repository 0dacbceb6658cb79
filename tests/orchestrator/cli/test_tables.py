import json
import math

import pandas as pd
from rich.console import Console, RenderableType

from orchestrator.cli import tables


def text(view: RenderableType) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(view)
    return console.export_text()


def row(estimator: str, value: float, metric: str = "lds", ceiling: float = 0.8) -> dict[str, object]:
    return {
        "estimator": estimator,
        "metric": metric,
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "ceiling": ceiling,
        "measure": "margin",
        "design": "heldout",
        "queries": 8,
        "subsets": 100,
        "seeds": 3,
        "train_seconds": 130.0,
        "attribute_seconds": math.nan,
    }


def test_the_leaderboard_is_by_lds_best_first_then_the_other_metrics() -> None:
    table = pd.DataFrame(
        [
            row("retraining", 0.7, "seed_check"),
            row("b", 0.5, "loo_correlation", math.nan),
            row("a", 0.2),
            row("b", 0.4),
            row("c", math.nan),
        ]
    )
    lines = [line for line in text(tables.leaderboard(table)).splitlines() if "margin" in line]
    assert [line.split()[1] for line in lines] == ["b", "a", "c", "b", "retraining"]
    assert [cell.strip() for cell in lines[0].split("│")[4:9]] == [
        "0.400",
        "0.300 to 0.500",
        "0.800",
        "0.50",
        "2 min 10 s",
    ]
    assert "nan" not in text(tables.leaderboard(table))


def test_an_empty_leaderboard_says_so() -> None:
    assert "no scores" in text(tables.leaderboard(pd.DataFrame()))


def test_records_are_json_without_nan() -> None:
    records = tables.records(pd.DataFrame([row("a", 0.2), row("b", math.inf)]))
    parsed = json.loads(json.dumps(records, allow_nan=False))
    assert parsed[0]["attribute_seconds"] is None
    assert parsed[1]["value"] is None
    assert parsed[1]["queries"] == 8
