"""The bound of what a sweep takes on disk, held to real sweeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.forecast.disk import disk_bound
from orchestrator.stages.plan import prepare, preview
from orchestrator.stages.retrain import retrain
from orchestrator.sweeps.sweep import Sweep

Raw = dict[str, Any]
WIDE = """
import numpy as np


class Wide:
    n, t = 8, 2000

    def train(self, subset, seed):
        return seed

    def measure(self, model):
        return {"worth": np.random.default_rng(model).normal(size=self.t)}
"""


def taken(*paths: Path) -> int:
    """Return what files and folders take on the disk, the whole blocks of each."""
    found = [one for path in paths for one in (path, *path.rglob("*"))]
    return sum(max(one.stat().st_blocks * 512, one.stat().st_size) for one in found)


@pytest.mark.parametrize("pack", [1, 8, 64])
@pytest.mark.parametrize("epochs", ["none", [1], [1, 2, 3]])
def test_a_finished_sweep_takes_less_than_the_bound_and_not_much_less(
    tiny: Raw, make_sweep: Callable[[Raw], Sweep], inline_pool: Any, pack: int, epochs: Any
) -> None:
    tiny["pack"], tiny["estimators"] = pack, {}
    tiny["designs"]["reference"]["checkpoints"] = epochs
    sweep = make_sweep(tiny)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        assert not any(store.failures(name) for name in store.designs)
    for name, plan in sweep.plans.items():
        paths = sweep.paths.runs / name, sweep.paths.ledger / name, sweep.paths.checkpoints / name
        there = taken(*(path for path in paths if path.exists()))
        assert there <= disk_bound(sweep, plan) <= 3 * there, name
    whole = taken(*(path for path in (sweep.paths.runs, sweep.paths.ledger, sweep.paths.checkpoints) if path.exists()))
    assert whole <= sum(one.bytes for one in preview(sweep))


@pytest.mark.parametrize("recipe", [{"momentum": 0.9}, {"optimizer": "adam", "lr": 0.01, "ema": 0.9}])
def test_the_optimizers_state_is_counted(
    tiny: Raw, make_sweep: Callable[[Raw], Sweep], inline_pool: Any, recipe: Raw
) -> None:
    tiny["estimators"] = {}
    tiny["designs"]["reference"] |= {"checkpoints": "every", "optimizer_state": True}
    tiny["task"]["arguments"]["recipe"] |= recipe
    sweep = make_sweep(tiny)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        kept = store.checkpoints("reference", 0)
    assert all(one.optimizer for one in kept)
    plan = sweep.plans["reference"]
    paths = sweep.paths.runs / plan.name, sweep.paths.ledger / plan.name, sweep.paths.checkpoints / plan.name
    there = taken(*(path for path in paths if path.exists()))
    assert there <= disk_bound(sweep, plan) <= 3 * there


def test_long_rows_are_counted_as_they_are(
    game: Raw, make_sweep: Callable[[Raw], Sweep], inline_pool: Any, tmp_path: Path
) -> None:
    """Outputs that do not compress, in packs of many: next to nothing is added to them."""
    (tmp_path / "wide.py").write_text(WIDE)
    game["task"] = {"name": "wide.py:Wide"}
    game["designs"] = {"fit": {"kind": "subsets", "subsets": 200}}
    game["pack"] = 50
    sweep = make_sweep(game)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
    there = taken(sweep.paths.runs / "fit", sweep.paths.ledger / "fit")
    assert there <= disk_bound(sweep, sweep.plans["fit"]) <= 1.3 * there
