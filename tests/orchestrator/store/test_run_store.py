"""What a run store in a folder promises beyond the conformance suite: its files, its errors' words, and their repair."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from numcodecs import PackBits
from numpy.typing import NDArray

from orchestrator.store.ledger import DONE, FAILED, PENDING
from orchestrator.store.manifest import FORMAT_VERSION, DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from workers.errors import LeaseError, StoreError
from workers.runs import Checkpoint, Outcome

MEASURES = ("margin", "loss")


@dataclass
class Sweep:
    """A store under test, and what should come out of it."""

    paths: SweepPaths
    runs: int
    pack: int
    n: int = 13
    t: int = 5
    _store: RunStore | None = field(default=None, repr=False)

    @property
    def store(self) -> RunStore:
        """The store, opened for writing."""
        if self._store is None:
            self.close()
            self._store = RunStore.open(self.paths, write=True)
        return self._store

    def close(self) -> None:
        if self._store:
            self._store.close()
            self._store = None

    def create(self) -> "Sweep":
        designs = [
            DesignLayout("fit", "subsets", "fit", self.runs, self.pack),
            DesignLayout("held-out", "subsets", "score", 3, 2),
        ]
        self._store = RunStore.create(
            self.paths,
            config_hash="c0ffee",
            n=self.n,
            t=self.t,
            measures=MEASURES,
            designs=designs,
            attributes={"task": "digits", "sizes": [1, 2]},
        )
        return self

    def plan(self, runs: int | None = None) -> dict[str, NDArray[np.generic]]:
        """The whole plan; rows do not depend on how many there are."""
        rows = range(self.runs if runs is None else runs)
        masks = np.stack([np.random.default_rng(row).random(self.n) < 0.5 for row in rows])
        seeds = np.array([(2**32 - 1 - row) for row in rows], dtype=np.uint32)
        subsets = np.array([row // 2 for row in rows], dtype=np.int64)
        return {
            "masks": masks,
            "seeds": seeds,
            "subsets": subsets,
            "repeats": np.array([r % 2 for r in rows], np.int32),
        }

    def write_plan(self, runs: int | None = None) -> "Sweep":
        plan = self.plan(runs)
        # One open store: a plan that is not finished is begun again by whoever opens the store next.
        store = self.store
        for start in range(0, len(plan["seeds"]), self.pack):
            rows = slice(start, start + self.pack)
            store.write_plan("fit", start, **{name: values[rows] for name, values in plan.items()})  # type: ignore[arg-type]
        return self

    def rows(self, pack: int) -> range:
        return range(pack * self.pack, min((pack + 1) * self.pack, self.store.designs["fit"].runs))

    def outputs(self, row: int, measure: str) -> NDArray[np.float32]:
        rng = np.random.default_rng([row, MEASURES.index(measure)])
        return rng.standard_normal(self.t).astype(np.float32)

    def outcome(self, row: int, *, epochs: tuple[int, ...] = ()) -> Outcome:
        kept = tuple(Checkpoint(e, 10 * e, 0.1, {"w": torch.full((2, 2), float(row + e))}) for e in epochs)
        return Outcome(row, {measure: self.outputs(row, measure) for measure in MEASURES}, kept, seconds=0.1)

    def commit(self, pack: int, rows: "list[int] | None" = None, **options: object) -> None:
        chosen = self.rows(pack) if rows is None else rows
        outcomes = [self.outcome(row, **options) for row in chosen]  # type: ignore[arg-type]
        self.store.commit("fit", pack, outcomes, worker="w0", started=1.7e9, seconds=2.5)

    def commit_all(self) -> "Sweep":
        for pack in range(self.store.designs["fit"].packs):
            self.commit(pack)
        return self

    def expect(self, done: "range | list[int]", failed: "list[int] | None" = None) -> None:
        """Compare states and outputs of every row, and find nothing damaged."""
        runs = self.store.designs["fit"].runs
        states = np.zeros(runs, dtype=np.int8)
        states[list(done)], states[failed or []] = DONE, FAILED
        np.testing.assert_array_equal(self.store.states("fit"), states)
        for measure in MEASURES:
            expected = np.full((runs, self.t), np.nan, dtype=np.float32)
            for row in done:
                expected[row] = self.outputs(row, measure)
            found = self.store.outputs("fit", measure)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected)
        assert [failure.row for failure in self.store.failures("fit")] == sorted(failed or [])
        assert self.store.verify("fit") == []

    def chunk(self, array: str, pack: int) -> Path:
        """The chunk file of a pack, found by what Zarr's specification says of its name."""
        tail = "" if array in ("seeds", "subsets", "repeats") else ".0"
        return self.paths.runs / "fit" / array / f"c.{pack}{tail}"


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was brought to the disk so far, and "-> " what took its name: only noted down, no test takes the power away."""
    noted: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: noted.append(os.readlink(f"/proc/self/fd/{descriptor}")))

    def noting(move: Callable[..., None]) -> Callable[..., None]:
        def moved(source: Path, target: Path) -> None:
            noted.append(f"-> {target}")
            move(source, target)

        return moved

    monkeypatch.setattr(os, "replace", noting(os.replace))
    monkeypatch.setattr(os, "rename", noting(os.rename))
    return noted


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    """A planned sweep: 10 rows in packs of 4, 4 and 2."""
    sweep = Sweep(SweepPaths(tmp_path / "sweep"), runs=10, pack=4).create().write_plan()
    yield sweep
    sweep.close()


class TestCrashes:
    """Whatever a killed process leaves, the rows that were done are done, and no other."""

    def test_everything_a_row_stands_on_is_on_the_disk_before_the_ledger_says_so(
        self, sweep: Sweep, synced: list[str]
    ) -> None:
        synced.clear()
        sweep.commit(1, [4, 5], epochs=(3,))
        record = sweep.paths.record("fit", 1)
        before = synced[: synced.index(f"-> {record}")]
        chunks = [sweep.chunk("outputs/margin", 1), sweep.chunk("outputs/loss", 1)]
        checkpoints = [sweep.paths.checkpoint("fit", row, 3) for row in (4, 5)]
        for path in (*chunks, *checkpoints):
            moved = before.index(f"-> {path}")
            assert str(path.parent) in before[moved:]
            assert any(f"/.{path.name}." in noted for noted in before[:moved])
        assert {str(folder) for folder in list(checkpoints[0].parents)[:3]} <= set(before)
        assert ".000001.json." in before[-1]
        assert synced[-1] == str(record.parent)

    def test_a_plan_is_on_the_disk_before_it_counts(self, sweep: Sweep, synced: list[str]) -> None:
        sweep.store.extend("fit", 12)
        synced.clear()
        sweep.write_plan(12)
        before = synced[: synced.index(f"-> {sweep.paths.plan_record('fit')}")]
        for name in ("masks", "seeds", "subsets", "repeats"):
            for path in [sweep.chunk(name, pack) for pack in range(3)]:
                assert str(path.parent) in before[before.index(f"-> {path}") :]
        assert synced[-1] == str(sweep.paths.design_ledger("fit"))

    def test_nothing_takes_its_name_before_it_is_on_the_disk(self, sweep: Sweep, synced: list[str]) -> None:
        synced.clear()
        sweep.commit(0, epochs=(1,))
        sweep.commit(1, [4])
        sweep.commit(1, [5])
        sweep.store.extend("fit", 12)
        sweep.write_plan(12)
        named = {}
        for at, step in enumerate(synced):
            if step.startswith("-> "):
                path = Path(step[3:])
                named[path.relative_to(sweep.paths.root).as_posix()] = path
                assert any(f"{path.parent}/.{path.name}." in noted for noted in synced[:at]), f"{path} was not synced"
                assert str(path.parent) in synced[at:], f"the name of {path} was not synced"
        arrays = ("masks", "seeds", "subsets", "repeats", "outputs/margin", "outputs/loss")
        metadata = {"runs.zarr/zarr.json", *(f"runs.zarr/fit/{name}/zarr.json" for name in arrays)}
        assert metadata <= named.keys(), "the metadata of a design that grows are replaced"
        assert {"runs.zarr/fit/masks/c.2.0", "runs.zarr/fit/outputs/loss/c.1.0"} <= named.keys()

    def test_a_crash_before_the_ledger_record(self, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
        sweep.commit(0, [0, 1])
        with monkeypatch.context() as patch:
            patch.setattr("orchestrator.store.ledger.write_atomically", die)
            with pytest.raises(KeyboardInterrupt):
                sweep.commit(0, [2, 3])
            with pytest.raises(KeyboardInterrupt):
                sweep.commit(1)
        sweep.close()
        raw = zarr.open_array(sweep.paths.output_array("fit", "loss"), mode="r")[:]
        assert np.isfinite(np.asarray(raw)[:8]).all()
        sweep.expect(done=[0, 1])
        sweep.commit(1)
        sweep.expect(done=[0, 1, 4, 5, 6, 7])

    def test_partial_files_are_cleaned_for_writing_only(self, sweep: Sweep) -> None:
        sweep.commit(0)
        sweep.close()
        left = [
            sweep.chunk("masks", 0).with_name("c.0.abc.partial"),
            sweep.paths.record("fit", 0).with_name(".x.partial"),
        ]
        for path in left:
            path.write_bytes(b"half")
        RunStore.open(sweep.paths).close()
        assert all(path.exists() for path in left)
        sweep.expect(done=range(4))
        assert not any(path.exists() for path in left)

    def test_what_was_being_written_beside_the_runs_is_cleaned_too(self, sweep: Sweep) -> None:
        sweep.close()
        root, attributions = sweep.paths.root, sweep.paths.attributions
        for folder in (attributions / ".a.partial", attributions / ".a.old.partial" / "values", root / ".x.partial"):
            folder.mkdir(parents=True)
            (folder / "zarr.json").write_text("{}")
        old, young = root / ".config.yaml.1.partial", root / ".report.html.2.partial"
        for path in (old, young):
            path.write_bytes(b"half")
        for path in (old, root / ".x.partial"):
            os.utime(path, (1.7e9, 1.7e9))
        kept = attributions / "a.partials"
        kept.mkdir()
        RunStore.open(sweep.paths).close()
        assert len(list(attributions.iterdir())) == 3
        RunStore.open(sweep.paths, write=True).close()
        assert list(attributions.iterdir()) == [kept]
        left = [path for path in root.iterdir() if path.name.endswith(".partial")]
        assert left == [young], "one that a report without the lease may be writing stays"

    def test_a_killed_process_loses_nothing_it_committed(self, sweep: Sweep) -> None:
        sweep.close()
        program = f"""
import os, signal, sys
import numpy as np
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from workers.runs import Outcome
store = RunStore.open(SweepPaths({str(sweep.paths.root)!r}), write=True)
for pack in range(2):
    rows = range(4 * pack, 4 * pack + 4)
    outcomes = [Outcome(r, {{m: np.full(5, r, np.float32) for m in store.measures}}) for r in rows]
    store.commit("fit", pack, outcomes, worker="w", started=0.0, seconds=1.0)
os.kill(os.getpid(), signal.SIGKILL)
"""
        killed = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=False)
        assert killed.returncode == -9
        assert sweep.store.states("fit").tolist() == [DONE] * 8 + [PENDING] * 2
        assert sweep.store.verify("fit") == []
        np.testing.assert_array_equal(sweep.store.outputs("fit", "loss")[:8, 0], np.arange(8))


class TestDamage:
    """Bytes that are not what was written are found, named and mended."""

    def mend(self, sweep: Sweep, runs: int = 10) -> None:
        """Do what a sweep does: write damaged plans again, forget everything else that is damaged, train it again."""
        plan = sweep.plan(runs)
        for _ in range(2):
            for damage in sweep.store.verify("fit"):
                if damage.what == "masks":
                    start = damage.rows[0]
                    part = {name: values[start : start + sweep.pack] for name, values in plan.items()}
                    sweep.store.write_plan("fit", start, **part)  # type: ignore[arg-type]
                else:
                    sweep.store.forget("fit", damage.rows)
        pending = np.flatnonzero(sweep.store.states("fit") == PENDING).tolist()
        for pack in sorted({row // sweep.pack for row in pending}):
            sweep.commit(pack, [row for row in pending if row // sweep.pack == pack])

    @pytest.mark.parametrize("seed", range(20))
    def test_any_harm_to_any_file_is_found_and_mended(self, sweep: Sweep, seed: int) -> None:
        rng = np.random.default_rng(seed)
        sweep.commit(0, epochs=(1, 2))
        sweep.commit(1)
        sweep.commit(2)
        folders = (sweep.paths.runs / "fit", sweep.paths.checkpoints)
        files = sorted(p for f in folders for p in f.rglob("*") if p.is_file() and p.name != "zarr.json")
        victim = files[rng.integers(len(files))]
        harm_at_random(victim, rng)
        (damage,) = sweep.store.verify("fit")
        assert damage.path == victim
        assert damage.design == "fit"
        assert set(damage.rows) <= set(sweep.rows(damage.pack))
        self.mend(sweep)
        sweep.expect(done=range(10))

    @pytest.mark.parametrize("array", ["outputs/margin", "outputs/loss"])
    @pytest.mark.parametrize("how", ["cut", "gone"])
    def test_reading_damaged_rows_names_the_file_and_the_remedy(self, sweep: Sweep, array: str, how: str) -> None:
        sweep.commit_all()
        chunk = sweep.chunk(array, 1)
        chunk.unlink() if how == "gone" else os.truncate(chunk, 9)
        measure = array.partition("/")[2]
        with pytest.raises(StoreError, match=rf"{chunk} .*counterfactory verify"):
            sweep.store.outputs("fit", measure)
        assert np.isfinite(sweep.store.outputs("fit", measure, 0, 4)).all()
        sweep.store.forget("fit", range(4, 8))
        assert np.isnan(sweep.store.outputs("fit", measure)[4:8]).all()
        assert sweep.store.verify("fit") == []
        self.mend(sweep)
        sweep.expect(done=range(10))

    @pytest.mark.parametrize("name", ["masks", "seeds", "subsets", "repeats"])
    @pytest.mark.parametrize("how", ["cut", "gone", "swapped"])
    def test_a_damaged_plan_is_written_again_and_no_run_is_lost(self, sweep: Sweep, name: str, how: str) -> None:
        sweep.commit_all()
        chunk = sweep.chunk(name, 1)
        if how == "swapped":
            plan = sweep.plan()
            wrong = np.roll(plan[name][4:8], 1, axis=0) if name != "repeats" else 1 - plan[name][4:8].astype(np.int32)
            zarr_write(sweep.paths.plan_array("fit", name), slice(4, 8), wrong)
        else:
            chunk.unlink() if how == "gone" else os.truncate(chunk, 5)
            with pytest.raises(StoreError, match=str(chunk)):
                getattr(sweep.store, name)("fit")
        damages = sweep.store.verify("fit")
        assert [(d.what, d.pack, d.rows) for d in damages] == [("masks", 1, (4, 5, 6, 7))]
        self.mend(sweep)
        sweep.expect(done=range(10))
        assert len(sweep.store.record("fit", 1).commits) == 1

    def test_readable_outputs_that_were_never_delivered_are_found(self, sweep: Sweep) -> None:
        sweep.commit_all()
        values = sweep.store.outputs("fit", "loss", 4, 8)
        values[2, 3] = np.nextafter(values[2, 3], np.inf)
        zarr_write(sweep.paths.output_array("fit", "loss"), slice(4, 8), values)
        (damage,) = sweep.store.verify("fit")
        assert (damage.what, damage.pack, damage.rows) == ("outputs", 1, (6,))
        self.mend(sweep)
        sweep.expect(done=range(10))

    def test_done_rows_are_checked_before_they_are_written_again(self, sweep: Sweep) -> None:
        sweep.commit(0, [0, 1])
        values = zarr.open_array(sweep.paths.output_array("fit", "loss"), mode="r")[:4]
        zarr_write(sweep.paths.output_array("fit", "loss"), slice(0, 4), -np.asarray(values))
        with pytest.raises(StoreError, match=r"/c\.0\.0 is readable, but row 0 of margin or loss is not what"):
            sweep.commit(0, [2, 3])
        os.truncate(sweep.chunk("outputs/loss", 0), 3)
        with pytest.raises(StoreError, match=str(sweep.chunk("outputs/loss", 0))):
            sweep.commit(0, [2, 3])

    def test_a_damaged_ledger_record_loses_only_its_pack(self, sweep: Sweep) -> None:
        sweep.commit_all()
        sweep.close()  # who writes looks at the ledger once
        os.truncate(sweep.paths.record("fit", 1), 30)
        with pytest.raises(StoreError, match=r"000001\.json is damaged"):
            sweep.store.states("fit")
        (damage,) = sweep.store.verify("fit")
        assert (damage.what, damage.rows) == ("ledger", (4, 5, 6, 7))
        self.mend(sweep)
        sweep.expect(done=range(10))

    def test_a_lost_plan_record_only_means_planning_again(self, sweep: Sweep) -> None:
        sweep.commit_all()
        sweep.close()
        sweep.paths.plan_record("fit").unlink()
        assert not sweep.store.planned("fit")
        sweep.chunk("seeds", 1).unlink()
        assert [(damage.what, damage.pack) for damage in sweep.store.verify("fit")] == [("masks", 1)]
        sweep.write_plan()
        sweep.expect(done=range(10))

    def test_progress_is_told(self, sweep: Sweep) -> None:
        told: list[tuple[int, int]] = []
        sweep.store.verify("fit", lambda now, of: told.append((now, of)))
        assert told == [(1, 3), (2, 3), (3, 3)]

    @pytest.mark.parametrize("victim", ["", "fit/masks", "fit/outputs/loss"])
    @pytest.mark.parametrize("how", ["cut", "empty", "gone"])
    def test_damaged_metadata_is_one_line_that_names_the_file(self, sweep: Sweep, victim: str, how: str) -> None:
        sweep.close()
        metadata = sweep.paths.runs / victim / "zarr.json"
        metadata.unlink() if how == "gone" else os.truncate(metadata, 40 if how == "cut" else 0)
        for write in (False, True):
            with pytest.raises(StoreError, match=str(metadata)) as caught:
                RunStore.open(sweep.paths, write=write)
            assert "\n" not in str(caught.value)

    def test_metadata_that_does_not_fit_the_manifest_is_refused(self, sweep: Sweep) -> None:
        sweep.close()
        shutil.copy(sweep.paths.runs / "held-out/masks/zarr.json", sweep.paths.runs / "fit/masks/zarr.json")
        with pytest.raises(StoreError, match=r"fit/masks/zarr\.json says bool \(3, 13\)"):
            RunStore.open(sweep.paths)


class TestRefusals:
    """A mistake is answered by one line, and changes nothing."""

    def test_a_folder_without_a_store(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="holds no runs"):
            RunStore.open(SweepPaths(tmp_path / "nothing"), write=True)
        assert not (tmp_path / "nothing").exists()

    def test_a_folder_with_a_store(self, sweep: Sweep) -> None:
        sweep.close()
        with pytest.raises(StoreError, match="exists already"):
            Sweep(sweep.paths, 10, 4).create()
        sweep.expect(done=[])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"format_version": FORMAT_VERSION + 1},
                f"has format version {FORMAT_VERSION + 1}, .* reads up to version",
            ),
            ({"format_version": "1"}, "is not a run store"),
            ({"format": "other"}, "is not a run store"),
            ({"n": 0}, "is damaged: n "),
            ({"designs": [{"name": "../x", "kind": "", "purpose": "", "runs": 1, "pack": 1}]}, "cannot name a folder"),
        ],
    )
    def test_attributes_of_another_format(self, sweep: Sweep, changes: dict[str, object], message: str) -> None:
        sweep.close()
        path = sweep.paths.runs / "zarr.json"
        metadata = json.loads(path.read_text())
        metadata["attributes"].update(changes)
        path.write_text(json.dumps(metadata))
        with pytest.raises(StoreError, match=message) as caught:
            RunStore.open(sweep.paths)
        assert "\n" not in str(caught.value)

    def test_a_second_writer(self, sweep: Sweep) -> None:
        with pytest.raises(LeaseError, match=f"process {os.getpid()}"):
            RunStore.open(sweep.paths, write=True)
        RunStore.open(sweep.paths).close()
        with sweep.store:
            pass
        RunStore.open(sweep.paths, write=True).close()

    def test_writing_what_was_opened_for_reading(self, sweep: Sweep) -> None:
        reader = RunStore.open(sweep.paths)
        writes: list[Callable[[], None]] = [
            lambda: reader.commit("fit", 0, [sweep.outcome(0)], worker="w", started=0, seconds=0),
            lambda: reader.forget("fit", [0]),
            lambda: reader.extend("fit", 12),
        ]
        for write in writes:
            with pytest.raises(StoreError, match="not open for writing"):
                write()

    def test_unknown_names(self, sweep: Sweep) -> None:
        with pytest.raises(StoreError, match="no design 'fitt': did you mean fit"):
            sweep.store.states("fitt")
        with pytest.raises(StoreError, match="no measure 'margn': did you mean margin"):
            sweep.store.outputs("fit", "margn")

    def test_names_that_cannot_be_folders_or_come_twice(self, tmp_path: Path) -> None:
        layout = DesignLayout("a", "subsets", "fit", 4, 2)
        paths = SweepPaths(tmp_path)
        common = {"config_hash": "", "n": 3, "t": 2}
        with pytest.raises(StoreError, match="'a/b' cannot name"):
            RunStore.create(paths, measures=("a/b",), designs=[layout], **common)  # type: ignore[arg-type]
        with pytest.raises(StoreError, match="'a' is used twice"):
            RunStore.create(paths, measures=("m",), designs=[layout, layout], **common)  # type: ignore[arg-type]
        assert os.listdir(tmp_path) == []

    def test_parts_of_packs(self, sweep: Sweep) -> None:
        plan = sweep.plan()
        for start, stop in ((0, 3), (2, 6), (8, 9)):
            with pytest.raises(ValueError, match="pack"):
                sweep.store.write_plan("fit", start, **{k: v[start:stop] for k, v in plan.items()})  # type: ignore[arg-type]

    def test_several_packs_are_planned_at_once_as_one_by_one(self, sweep: Sweep) -> None:
        sweep.store.extend("fit", 19)
        sweep.close()
        plan = sweep.plan(19)
        for start, stop in ((8, 19), (0, 8)):
            part = {name: values[start:stop] for name, values in plan.items()}
            sweep.store.write_plan("fit", start, **part)  # type: ignore[arg-type]
        assert sweep.store.planned("fit")
        sweep.close()
        assert np.array_equal(sweep.store.masks("fit"), plan["masks"])
        assert sweep.store.seeds("fit").tolist() == plan["seeds"].tolist()
        sweep.write_plan(19)
        assert not sweep.store.verify("fit")

    def test_a_plan_that_changes_or_does_not_fit(self, sweep: Sweep) -> None:
        part = {name: values[:4] for name, values in sweep.plan().items()}
        with pytest.raises(StoreError, match=r"rows 0\.\.3 of design 'fit' differs .* configuration has changed"):
            sweep.store.write_plan("fit", 0, **{**part, "masks": np.logical_not(part["masks"])})
        with pytest.raises(ValueError, match="masks has shape"):
            sweep.store.write_plan("fit", 0, **{**part, "masks": part["masks"][:, :12]})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="not of type uint32"):
            sweep.store.write_plan("fit", 0, **{**part, "seeds": np.full(4, -1)})

    def test_outcomes_that_do_not_belong(self, sweep: Sweep) -> None:
        sweep.commit(0, [0])
        good = sweep.outcome(1)
        nan = Outcome(1, {**good.outputs, "loss": np.full(5, np.nan, np.float32)})
        short = Outcome(1, {**good.outputs, "loss": np.zeros(4, np.float32)})
        for bad in ([sweep.outcome(4)], [good, good], [sweep.outcome(0)], [nan], [short], [Outcome(1)]):
            with pytest.raises(ValueError, match=r"row \d"):
                sweep.store.commit("fit", 0, bad, worker="w", started=0, seconds=0)
        with pytest.raises(ValueError, match="no complete plan"):
            sweep.store.commit("held-out", 0, [good], worker="w", started=0, seconds=0)
        with pytest.raises(ValueError, match="has packs"):
            sweep.store.commit("fit", 3, [good], worker="w", started=0, seconds=0)
        sweep.expect(done=[0])

    def test_a_design_does_not_shrink(self, sweep: Sweep) -> None:
        with pytest.raises(StoreError, match="cannot be cut to 9"):
            sweep.store.extend("fit", 9)

    @pytest.mark.parametrize("where", ["os.fsync", "os.replace"])
    def test_a_full_disk(self, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        sweep.commit(0)
        with monkeypatch.context() as patch:
            patch.setattr(where, full)
            with pytest.raises(StoreError, match=rf"cannot write {sweep.paths.root}.*: No space left") as caught:
                sweep.commit(1)
        assert "\n" not in str(caught.value)
        sweep.expect(done=range(4))
        sweep.commit(1)
        sweep.expect(done=range(8))


class TestOpenFormat:
    """The files can be read by anyone, without counterfactory."""

    def test_zarr_alone_reads_everything(self, sweep: Sweep) -> None:
        sweep.commit_all()
        group = zarr.open_group(sweep.paths.runs, mode="r")
        with pytest.warns(UserWarning, match="Numcodecs codecs"):
            masks = zarr.open_array(sweep.paths.plan_array("fit", "masks"), mode="r")
        np.testing.assert_array_equal(masks[:], sweep.plan()["masks"])
        loss = zarr.open_array(sweep.paths.output_array("fit", "loss"), mode="r")
        np.testing.assert_array_equal(loss[:], sweep.store.outputs("fit", "loss"))
        assert group.attrs["format_version"] == FORMAT_VERSION
        assert group.attrs["config_hash"] == "c0ffee"

    def test_xarray_reads_it_with_its_dimensions(self, sweep: Sweep) -> None:
        xarray = pytest.importorskip("xarray")
        sweep.commit_all()
        with pytest.warns(UserWarning, match="Numcodecs codecs"):
            plan = xarray.open_zarr(sweep.paths.runs, group="fit", consolidated=False)
        assert plan["masks"].dims == ("run", "example")
        assert plan["seeds"].dims == plan["subsets"].dims == plan["repeats"].dims == ("run",)
        assert plan.attrs == {"kind": "subsets", "purpose": "fit"}
        outputs = xarray.open_zarr(sweep.paths.runs, group="fit/outputs", consolidated=False)
        assert outputs["margin"].dims == ("run", "query")
        np.testing.assert_array_equal(outputs["loss"].to_numpy(), sweep.store.outputs("fit", "loss"))

    @pytest.mark.parametrize("n", [1, 7, 8, 9, 4001])
    def test_masks_are_one_bit_each_on_the_disk(self, tmp_path: Path, n: int) -> None:
        sweep = Sweep(SweepPaths(tmp_path), runs=7, pack=7, n=n).create().write_plan()
        np.testing.assert_array_equal(sweep.store.masks("fit"), sweep.plan()["masks"])
        bits = np.asarray(PackBits().encode(sweep.plan()["masks"])).nbytes
        assert bits == -(-7 * n // 8) + 1
        # Random bits do not compress: zstd's frame and the checksum are all that is added.
        assert sweep.chunk("masks", 0).stat().st_size <= bits + 24
        sweep.close()

    def test_checksums_are_outermost(self, sweep: Sweep) -> None:
        for array in ("masks", "seeds", "outputs/loss"):
            codecs = json.loads((sweep.paths.runs / "fit" / array / "zarr.json").read_text())["codecs"]
            assert [codec["name"] for codec in codecs][-2:] == ["zstd", "crc32c"]


def die(*_: object, **__: object) -> None:
    """Stand in for a kill: nothing catches it."""
    raise KeyboardInterrupt


def zarr_write(path: Path, rows: slice, values: NDArray[np.generic]) -> None:
    """Write rows past the store, with good checksums."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.open_array(path, mode="r+")[rows] = values


def harm_at_random(path: Path, rng: np.random.Generator) -> None:
    """Flip a bit, cut the file short, or remove it."""
    content = bytearray(path.read_bytes())
    at = int(rng.integers(len(content)))
    match rng.integers(3):
        case 0:
            content[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(content)
        case 1:
            path.write_bytes(content[:at])
        case _:
            path.unlink()
