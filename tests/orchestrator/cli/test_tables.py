import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console, RenderableType

from orchestrator.cli import tables
from orchestrator.stages.status import Status
from orchestrator.stages.verify import Rerun
from orchestrator.store.verification import Damage


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
    records = tables.records(pd.DataFrame([row("a", 0.2), row("b", math.inf)]).assign(queries=np.int64(3)))
    parsed = json.loads(json.dumps(records, allow_nan=False))
    assert parsed[0]["attribute_seconds"] is None
    assert parsed[1]["value"] is None
    assert parsed[1]["queries"] == 3


def test_plain_data_is_what_json_can_hold() -> None:
    nested = {1: (np.float32(0.5), np.array([1.0, np.nan])), "x": [np.int8(2), np.bool_(True), None, "s"]}
    assert tables.plain(nested) == {"1": [0.5, [1.0, None]], "x": [2, True, None, "s"]}


def status(**changes: object) -> Status:
    values = {
        "folder": "/runs/x",
        "running": None,
        "designs": {"fit": {"done": 1200, "failed": 3, "pending": 797}},
        "done": 1200,
        "failed": 3,
        "pending": 797,
        "rate": None,
        "seconds_left": None,
        "failures": (),
        "attributions": (),
    }
    return Status(**{**values, **changes})  # type: ignore[arg-type]


def test_status_tells_how_far_and_how_to_go_on() -> None:
    shown = text(tables.status_view(status()))
    assert "/runs/x" in shown
    for cell in ("1,200", "3", "797", "not running; `counterfactory retrain"):
        assert cell in shown


def test_status_tells_who_is_running_and_for_how_long() -> None:
    shown = text(tables.status_view(status(running={"pid": 7, "host": "h"}, rate=2.5, seconds_left=318.8)))
    assert "running: process 7 on h, 2.5 runs/s, 5 min 19 s left" in shown


def test_status_tells_failures_as_they_are_up_to_ten() -> None:
    shown = text(tables.status_view(status(failures=tuple(f"fit: KeyError: [bold]{k}" for k in range(12)))))
    assert "failure: fit: KeyError: [bold]0" in shown
    assert "... and 2 other failures" in shown


def test_a_damage_is_one_line() -> None:
    damage = Damage("fit", 3, tuple(range(96, 104)), Path("/x/c/3/0"), "outputs", "flipped")
    assert tables.damage_line(damage) == "fit pack 3 (outputs; rows 96, 97, 98, 99, 100, ...): /x/c/3/0"


@pytest.mark.parametrize("equal", [True, False])
def test_verification_tells_what_was_trained_again(equal: bool) -> None:
    rerun = Rerun("fit", 5, equal, 0.0 if equal else 0.25)
    shown = text(tables.verification({"fit": (10, 0, 0)}, [], [rerun], {"torch": ("2.9", "2.10")}))
    assert "all 10 finished rows agree with the ledger" in shown
    assert ("trained again: fit row 5: equal, bit by bit" if equal else "differs by up to 0.25") in shown
    assert ("made with torch 2.9, here it is 2.10" in shown) is not equal


def test_verification_tells_damage_and_its_remedy() -> None:
    damage = Damage("fit", 0, (1,), Path("/x"), "checkpoint", "missing")
    shown = text(tables.verification({"fit": (10, 0, 0)}, [damage], [], {}))
    assert "damaged: fit pack 0 (checkpoint; rows 1): /x" in shown
    assert "1 places damaged; `counterfactory run` or `retrain` trains them again" in shown
    assert "agree with the ledger" not in shown
