"""Our own store keeps every promise; the suite that says so tells a wrong store."""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.store import run_store, testing
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import Damage, RunStore
from orchestrator.store.testing import Folder, Make, Shape
from workers.runs import Outcome


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: no test takes the power away."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[type[RunStore]], Make]:
    """folders(kind)() is a new folder for a store of that kind."""
    numbers = itertools.count()
    return lambda kind: lambda: Folder(tmp_path / str(next(numbers)), kind)


def name(value: Any) -> str:
    if isinstance(value, Shape):
        return f"{value.runs} rows in packs of {value.pack}" + ", reopened" * value.reopen
    return str(getattr(value, "__name__", value))


@pytest.mark.parametrize("shape", testing.SHAPES, ids=name)
@pytest.mark.parametrize("promise", testing.PROMISES, ids=name)
def test_the_store_keeps_its_promises(promise: Any, shape: Shape, folders: Any) -> None:
    promise(folders(RunStore), shape)


@pytest.mark.parametrize("accident", testing.ACCIDENTS, ids=name)
def test_the_store_survives_accidents(accident: Any, folders: Any) -> None:
    accident(folders(RunStore))


class ZeroWhereNothingIs(RunStore):
    def outputs(self, design: str, measure: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        return np.nan_to_num(super().outputs(design, measure, start, stop))


class NoRecord(RunStore):
    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        super().commit(design, pack, outcomes, **told)
        self.paths.record(design, pack).unlink()


class NothingListed(RunStore):
    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        super().commit(design, pack, outcomes, **told)
        self.paths.committed(design).write_bytes(b"")


class RecordFirst(RunStore):
    def commit(self, design: str, pack: int, outcomes: Sequence[Outcome], **told: Any) -> None:
        runs = self._designs[design]
        write, later = runs._write_outputs, []
        runs._write_outputs = lambda *arguments: later.append(arguments)  # type: ignore[method-assign, assignment]
        super().commit(design, pack, outcomes, **told)
        write(*later[0])
        runs._write_outputs = write  # type: ignore[method-assign]


class NoReasons(RunStore):
    def failures(self, design: str) -> list[Any]:
        return []


class NothingForgotten(RunStore):
    def forget(self, design: str, rows: Iterable[int]) -> None:
        pass


class WholePackForgotten(RunStore):
    def forget(self, design: str, rows: Iterable[int]) -> None:
        layout = self.designs[design]
        super().forget(design, [row for one in rows for row in layout.rows(one // layout.pack)])


class AlwaysPlanned(RunStore):
    def planned(self, design: str) -> bool:
        return True


class DoublePrecision(RunStore):
    def subsets(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        return super().subsets(design, start, stop).astype(np.float64)


class NoDamage(RunStore):
    def verify(self, design: str, progress: Any = None) -> list[Damage]:
        return []


class CheckpointsUnread(RunStore):
    def verify(self, design: str, progress: Any = None) -> list[Damage]:
        return [damage for damage in super().verify(design) if damage.what != "checkpoint"]


class FirstRows(RunStore):
    def masks(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        return super().masks(design)[: (stop or self.designs[design].runs) - start]


class Shrinking(RunStore):
    def extend(self, design: str, runs: int) -> None:
        if runs >= self.designs[design].runs:
            super().extend(design, runs)


class NoLease(RunStore):
    @classmethod
    def open(cls, paths: SweepPaths, *, write: bool = False) -> RunStore:
        class Anyone:
            def release(self) -> None:
                pass

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_store, "Lease", lambda paths: Anyone())
            return super().open(paths, write=write)


class AnyVersion(RunStore):
    @classmethod
    def open(cls, paths: SweepPaths, *, write: bool = False) -> RunStore:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("orchestrator.store.manifest.FORMAT_VERSION", 99)
            return super().open(paths, write=write)


class AnyError(RunStore):
    @classmethod
    def open(cls, paths: SweepPaths, *, write: bool = False) -> RunStore:
        if not paths.runs.exists():
            raise FileNotFoundError(paths.runs)
        return super().open(paths, write=write)


WRONG = [
    (ZeroWhereNothingIs, "check_commits", "the outputs through 'margin' of rows done and not .* expected nan"),
    (NoRecord, "check_commits", "verify finds ledger damaged where nothing was harmed"),
    (NoReasons, "check_failures", "the failures are"),
    (NothingForgotten, "check_forgetting", "the states of the rows"),
    (WholePackForgotten, "check_forgetting", "the states of the rows"),
    (AlwaysPlanned, "check_plan", "no plan is written, but `planned` is true"),
    (AlwaysPlanned, "check_growth", "`planned` before its new rows"),
    (DoublePrecision, "check_plan", "subsets are float64, expected int64"),
    (FirstRows, "check_plan", "masks of rows 1"),
    (Shrinking, "check_growth", "cutting a design is not refused"),
    (NoDamage, "check_damage", "is 0 damages to verify, expected one"),
    (CheckpointsUnread, "check_damage", "checkpoints/fit/5/1.safetensors, cut, is 0 damages"),
    (NothingListed, "check_damage", r"ledger/fit/00000\d.json, gone, is 0 damages to verify, expected one"),
    (NoLease, "check_one_writer", "a second writer is not refused"),
    (AnyVersion, "check_refusals", "opening a store of a newer format is not refused"),
    (AnyError, "check_refusals", "opening where no store is raises FileNotFoundError, expected StoreError"),
    (RecordFirst, "check_crashes", "not what they should be|refuses what should be whole|finds .* damaged"),
]


@pytest.mark.parametrize(("kind", "check", "message"), WRONG, ids=name)
def test_a_wrong_store_is_told(kind: type[RunStore], check: str, message: str, folders: Any) -> None:
    with pytest.raises(AssertionError, match=message) as caught:
        getattr(testing, check)(folders(kind))
    assert "\n" not in str(caught.value)


def test_all_checks_are_run_together(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    for tuple_name in ("PROMISES", "ACCIDENTS"):
        stand_ins = tuple(lambda *given, check=check: called.append(check) for check in getattr(testing, tuple_name))
        monkeypatch.setattr(testing, tuple_name, stand_ins)
    testing.check_store(folders(RunStore))
    checks = {getattr(testing, one) for one in testing.__all__ if one.startswith("check_") and one != "check_store"}
    assert set(called) == checks
    assert len(called) == 9 * len(testing.SHAPES) + 4
