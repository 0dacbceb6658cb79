"""A kept attribution stands for the rows it was computed from, and for no others."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.store.attributions import read_attributes_of, read_attribution
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from workers.runs import Outcome

Command = Callable[..., Any]
UNKNOWN = "it does not say which rows it was computed from"


def change_a_run(sweep: Path, design: str, row: int) -> None:
    """Give a finished run other outputs, as it comes to when it is trained again elsewhere."""
    with RunStore.open(SweepPaths(sweep), write=True) as store:
        old = {measure: store.outputs(design, measure, row, row + 1)[0] for measure in store.measures}
        store.forget(design, [row])
        outcome = Outcome(row, {measure: values + np.float32(1) for measure, values in old.items()}, seconds=0.1)
        store.commit(design, row // store.designs[design].pack, [outcome], worker="w", started=1.0, seconds=1.0)


def make_as_earlier(sweep: Path, name: str) -> None:
    """Let an attribution say no more of its rows than a version did that stamped the ledger."""
    path = sweep / "attributions.zarr" / name / "zarr.json"
    content = json.loads(path.read_text())
    del content["attributes"]["rows"]
    content["attributes"]["stamp"] = json.dumps([{}, "margin", "0123456789abcdef"])
    path.write_text(json.dumps(content))


def test_an_attribution_carries_the_hash_over_the_hashes_of_its_rows(finished_sweep: Path) -> None:
    records = [json.loads(path.read_text()) for path in sorted((finished_sweep / "ledger/fit").glob("0*.json"))]
    text = "".join(f"{row['row']}:{row['hash']};" for record in records for row in record["rows"])
    expected = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    assert len(records) > 1
    paths = SweepPaths(finished_sweep)
    assert read_attributes_of(paths, "difference_in_means").rows["fit"] == expected
    assert read_attributes_of(paths, "random").rows == {}


def test_one_of_other_runs_is_computed_anew_and_that_is_said(sweep_copy: Path, command: Command) -> None:
    before = read_attribution(SweepPaths(sweep_copy), "difference_in_means").values
    assert "kept is stale" not in command("attribute", sweep_copy).err
    change_a_run(sweep_copy, "fit", 3)
    said = json.loads(command("status", sweep_copy, "--json").out)["stale"]
    assert said == {"difference_in_means": "the runs of fit changed"}
    ended = command("attribute", sweep_copy)
    (line,) = (line for line in ended.err.splitlines() if "stale: its runs changed" in line)
    assert line.startswith("attributed difference_in_means (from 20 models")
    assert ended.err.count("kept)") == 2
    assert not np.array_equal(read_attribution(SweepPaths(sweep_copy), "difference_in_means").values, before)
    assert json.loads(command("status", sweep_copy, "--json").out)["stale"] == {}


def test_one_that_does_not_say_its_rows_is_read_and_computed_anew(sweep_copy: Path, command: Command) -> None:
    before = read_attribution(SweepPaths(sweep_copy), "difference_in_means").values
    make_as_earlier(sweep_copy, "difference_in_means")
    assert np.array_equal(read_attribution(SweepPaths(sweep_copy), "difference_in_means").values, before)
    assert command("score", sweep_copy).code == command("report", sweep_copy).code == 0
    shown = command("status", sweep_copy).out
    assert f"stale: difference_in_means, {UNKNOWN}; `counterfactory attribute DIR` computes it anew" in " ".join(
        shown.split()
    )
    ended = command("attribute", sweep_copy)
    assert f"stale: {UNKNOWN}" in " ".join(ended.err.split())
    assert ended.code == 0
    assert np.array_equal(read_attribution(SweepPaths(sweep_copy), "difference_in_means").values, before)


@pytest.mark.parametrize("rows", [None, "fit", ["x"], {"fit": 3}])
def test_rows_that_are_no_hashes_are_never_taken_for_those_that_are_there(
    rows: Any, sweep_copy: Path, command: Command
) -> None:
    path = sweep_copy / "attributions.zarr/difference_in_means/zarr.json"
    content = json.loads(path.read_text())
    content["attributes"]["rows"] = rows
    path.write_text(json.dumps(content))
    assert command("status", sweep_copy).code == 0
    ended = command("attribute", sweep_copy)
    assert (ended.code, ended.err.count("is stale")) == (0, 1)


def test_status_shows_an_attribution_that_is_damaged(sweep_copy: Path, command: Command) -> None:
    path = sweep_copy / "attributions.zarr/difference_in_means/zarr.json"
    path.write_text("{")
    assert str(path) in json.loads(command("status", sweep_copy, "--json").out)["stale"]["difference_in_means"]
