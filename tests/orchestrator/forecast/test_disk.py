"""The bound of what a sweep takes on disk, held to real sweeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.loading import validate
from orchestrator.forecast.disk import disk_bound, kept_bound
from orchestrator.stages.attribute import attribute
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


KEPT: Raw = {
    "name": "kept",
    "task": {"name": "digits", "arguments": {"n": 600, "t": 2, "hidden": 8, "recipe": {"epochs": 2}}},
    "measures": ["margin"],
    "designs": {"reference": {"kind": "full", "seeds": 3, "checkpoints": [1, 2]}},
    "estimators": {
        "logra": {"rank": 8, "init": "pca", "store": True},
        "few": {"estimator": "logra", "rank": 8, "init": "pca", "models": 2, "store": True},
        "trak": {"project_dim": 900, "projection": "sparse", "checkpoints": "all", "store": True, "models": 2},
        "grad_dot": {"projection": "factored", "project_dim": 50, "store": True},
        "tracin": {},
    },
}


def test_gradients_that_are_kept_take_less_than_their_bound_and_not_much_less(inline_pool: Any, tmp_path: Path) -> None:
    sweep = Sweep.of(validate({"folder": str(tmp_path), **KEPT}, "kept.yaml"), tmp_path / "sweep")
    bound = kept_bound(sweep)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        assert not [one.error for one in attribute(sweep, store, before_task=lambda: "") if one.error]
    there = taken(sweep.paths.gradients)
    assert there <= bound <= 1.5 * there
    kept = sorted(one.name for one in sweep.paths.gradients.iterdir() if one.is_dir())
    assert kept == ["grad_dot", "logra", "trak"], "two that differ in their number of models share"


def test_what_keeps_nothing_needs_nothing(tmp_path: Path) -> None:
    raw = {**KEPT, "estimators": {"logra": {}, "grad_dot": {}}}
    assert kept_bound(Sweep.of(validate({"folder": str(tmp_path), **raw}, "kept.yaml"), tmp_path / "sweep")) == 0
