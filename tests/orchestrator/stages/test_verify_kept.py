"""`verify` reads what is kept for queries, names what is damaged, and says what is of other options than the configuration's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config.loading import validate
from orchestrator.stages.attribute import attribute
from orchestrator.stages.new_queries import attribute_new_queries
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.stages.verify import KeptFindings, check_kept
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from tests.orchestrator.conftest import InlinePool

CONFIG: dict[str, Any] = {
    "name": "kept",
    "task": {"name": "digits", "arguments": {"n": 20, "t": 2, "hidden": 4, "recipe": {"epochs": 1}}},
    "measures": ["margin"],
    "designs": {"reference": {"kind": "full", "seeds": 2, "checkpoints": [1]}},
    "estimators": {"trak": {"project_dim": 6, "projection": "factored", "store": True}},
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that keeps gradients of two models, and an attribution of three later queries; only to be read."""
    folder = tmp_path_factory.mktemp("kept") / "sweep"
    sweep = Sweep.of(validate({"folder": str(folder.parent), **CONFIG}, "kept.yaml"), folder)
    queries = folder.parent / "more.npz"
    np.savez(queries, x=np.random.default_rng(0).integers(0, 16, (3, 8, 8)), y=np.arange(3))
    with prepare(sweep) as store:
        retrain(sweep, store, pool=InlinePool(sweep))
        assert not [one.error for one in attribute(sweep, store, before_task=lambda: "") if one.error]
        attribute_new_queries(sweep, store, queries)
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(kept, tmp_path / "sweep"))


def found(folder: Path) -> KeptFindings:
    sweep = Sweep.at(folder)
    with RunStore.open(sweep.paths) as store:
        return check_kept(sweep, store)


def files(folder: Path) -> list[Path]:
    return sorted(
        one for name in ("gradients.zarr", "queries.zarr") for one in (folder / name).rglob("*") if one.is_file()
    )


def test_what_is_whole_is_whole(kept: Path, command: Any) -> None:
    assert found(kept) == KeptFindings((), ())
    ended = command("verify", kept, "--json")
    assert ended.code == 0
    assert json.loads(ended.out) == {"damages": [], "kept": [], "outdated": [], "reruns": [], "machine_changes": {}}


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_every_damaged_file_is_named(folder: Path, how: str) -> None:
    listed = files(folder)
    assert {"rows", "multipliers", "side_0_out", "values"} <= {one.parent.name for one in listed}
    for victim in listed:
        content = victim.read_bytes()
        middle = len(content) // 2
        if how == "gone":
            victim.unlink()
        else:
            flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            victim.write_bytes(flipped if how == "flipped" else content[:middle])
        damages = found(folder).damages
        assert len(damages) == 1, (victim, damages)
        (damage,) = damages
        assert victim.is_relative_to(damage.path), victim
        assert str(victim.parent) in str(damage), (victim, str(damage))
        victim.write_bytes(content)
    assert found(folder) == KeptFindings((), ())


def test_the_command_says_so_and_ends_with_one(folder: Path, command: Any) -> None:
    victim = folder / "gradients.zarr" / "trak" / "1" / "rows" / "c.0.0"
    victim.write_bytes(b"other")
    ended = command("verify", folder)
    assert ended.code == 1
    said = "".join(ended.out.split())  # the terminal's width decides where a line is broken
    for part in (
        f"damaged: {victim} is damaged",
        f"remove {victim.parents[1]}, and `counterfactory attribute {folder}`",
    ):
        assert part.replace(" ", "") in said
    assert "finishedrowsagreewiththeledger" in said, "no run is lost by it"


def test_what_is_of_other_options_is_said_and_is_no_damage(folder: Path) -> None:
    config = {**CONFIG, "estimators": {"trak": {**CONFIG["estimators"]["trak"], "project_dim": 5}}}
    sweep = Sweep.of(validate({"folder": str(folder.parent), **config}, "kept.yaml"), folder)
    with RunStore.open(sweep.paths) as store:
        kept = check_kept(sweep, store)
    assert not kept.damages
    assert len(kept.outdated) == 3, "two networks and an attribution"
    assert all("project_dim is 6, expected 5" in line for line in kept.outdated)
    gone = Sweep.of(validate({"folder": str(folder.parent), **CONFIG, "estimators": {"random": {}}}, "k.yaml"), folder)
    with RunStore.open(gone.paths) as store:
        assert all("no such estimator" in line for line in check_kept(gone, store).outdated)
