"""Every kind of damage is told as what it is: which rows, which file, and what is wrong with it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.store.damage import Damage
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from workers.runs import Checkpoint, Outcome

PLAN = {
    "masks": np.eye(6, 5, dtype=bool),
    "seeds": np.arange(6, dtype=np.uint32),
    "subsets": np.arange(6, dtype=np.int64),
    "repeats": np.zeros(6, dtype=np.int32),
}


@pytest.fixture
def paths(tmp_path: Path) -> SweepPaths:
    """Six rows in packs of four; rows 0, 2 and 5 are done, the last one with two checkpoints."""
    layout, made = DesignLayout("fit", "subsets", "fit", 6, 4), SweepPaths(tmp_path / "sweep")
    with RunStore.create(made, config_hash="x", n=5, t=2, measures=("loss", "margin"), designs=[layout]) as store:
        store.write_plan("fit", 0, **PLAN)
        for pack, rows in ((0, (0, 2)), (1, (5,))):
            outcomes = [
                Outcome(
                    row,
                    {"loss": np.full(2, row, np.float32), "margin": np.full(2, -row, np.float32)},
                    checkpoints=tuple(Checkpoint(epoch, 3, 0.1, {"w": torch.ones(2)}) for epoch in (1, 2))
                    if row == 5
                    else (),
                )
                for row in rows
            ]
            store.commit("fit", pack, outcomes, worker="w", started=1.0, seconds=1.0)
    return made


def damages(paths: SweepPaths) -> list[Damage]:
    with RunStore.open(paths) as store:
        return store.verify("fit")


def test_nothing_is_wrong_with_what_was_written(paths: SweepPaths) -> None:
    assert damages(paths) == []


@pytest.mark.parametrize(("pack", "rows"), [(0, (0, 1, 2, 3)), (1, (4, 5))])
def test_a_record_that_makes_no_sense_or_is_gone(paths: SweepPaths, pack: int, rows: tuple[int, ...]) -> None:
    record = paths.record("fit", pack)
    record.write_bytes(record.read_bytes()[:9])
    assert damages(paths) == [Damage("fit", pack, rows, record, "ledger", "damaged")]
    record.unlink()
    reason = "missing, though its pack was committed"
    assert damages(paths) == [Damage("fit", pack, rows, record, "ledger", reason)]


def test_a_plan_that_is_gone_or_is_another_s(paths: SweepPaths) -> None:
    seeds = paths.plan_array("fit", "seeds") / "c.0"
    content = seeds.read_bytes()
    seeds.write_bytes((paths.plan_array("fit", "seeds") / "c.1").read_bytes())
    masks, reason = paths.plan_array("fit", "masks") / "c.0.0", "readable, but not what was planned"
    assert damages(paths) == [Damage("fit", 0, (0, 1, 2, 3), masks, "masks", reason)]
    seeds.unlink()
    assert damages(paths) == [Damage("fit", 0, (0, 1, 2, 3), seeds, "masks", "missing")]
    seeds.write_bytes(content)
    assert damages(paths) == []


def test_outputs_that_are_gone_or_are_another_s(paths: SweepPaths) -> None:
    loss, margin = (paths.output_array("fit", measure) / "c.0.0" for measure in ("loss", "margin"))
    content = margin.read_bytes()
    margin.write_bytes(loss.read_bytes())  # of row 0 the outputs are alike
    reason = "readable, but row 2 of loss or margin is not what the ledger's hash was taken of"
    assert damages(paths) == [Damage("fit", 0, (2,), loss, "outputs", reason)]
    margin.unlink()
    assert damages(paths) == [Damage("fit", 0, (0, 2), margin, "outputs", "missing")]
    margin.write_bytes(content)
    assert damages(paths) == []


def test_checkpoints_that_are_gone_or_are_another_s(paths: SweepPaths) -> None:
    first, second = (paths.checkpoint("fit", 5, epoch) for epoch in (1, 2))
    first.write_bytes(second.read_bytes())
    second.unlink()
    assert damages(paths) == [
        Damage("fit", 1, (5,), first, "checkpoint", "not what was written"),
        Damage("fit", 1, (5,), second, "checkpoint", "missing"),
    ]


def test_without_its_plan_outputs_are_read_and_not_compared(paths: SweepPaths) -> None:
    (paths.plan_array("fit", "masks") / "c.0.0").unlink()
    loss, margin = (paths.output_array("fit", measure) / "c.0.0" for measure in ("loss", "margin"))
    margin.write_bytes(loss.read_bytes())
    assert [damage.what for damage in damages(paths)] == ["masks"]
    loss.unlink()
    assert [damage.what for damage in damages(paths)] == ["masks", "outputs"]
