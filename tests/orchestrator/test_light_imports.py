"""Whoever only looks at a sweep does not wait for the libraries that train, and no code of its task is run."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.retraining.counts import finished
from orchestrator.stages.export import Request, export
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.stages.status import status
from orchestrator.stages.verify import check_rows
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]
HEAVY = ("torch", "ray", "numba", "scipy.stats", "sklearn")
LIGHT = ("sweeps.sweep", "sweeps.plan", "sweeps.truncation", "sweeps.provenance", "designs")
LIGHT_STAGES = ("retraining.counts", "stages.status", "stages.verify", "stages.export")


@pytest.mark.parametrize("name", [*LIGHT, *LIGHT_STAGES])
def test_looking_at_a_sweep_imports_nothing_that_trains(name: str) -> None:
    program = f"import sys, orchestrator.{name}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_what_is_counted_checked_and_exported_needs_no_task(
    game: Raw, make_sweep: Make, inline_pool: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "groups.npy", np.arange(8) // 2)
    game["designs"] = {
        "orders": {"kind": "permutations", "permutations": 2, "truncation": 0.5},
        "left_out": {"kind": "leave_group_out", "by": "groups.npy"},
        "everything": {"kind": "full"},
    }
    sweep = make_sweep(game)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        expected = finished(sweep, store)
    (tmp_path / "game.py").unlink()
    (tmp_path / "groups.npy").unlink()
    looked_at = Sweep.at(sweep.paths.root)
    with RunStore.open(looked_at.paths) as store:
        found = status(looked_at, store)
        assert check_rows(store) == []
        assert export(Request(looked_at, store, tmp_path / "sweep.npz")).count
    counts = {name: (one["done"], one["failed"], one["pending"]) for name, one in found.designs.items()}
    assert counts == expected
    assert expected["left_out"] == (4, 0, 0)
