"""A sweep from a stranger: what lies where a file is expected is neither followed, waited for, overwritten nor believed."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config import yaml_format
from orchestrator.store.attributions import Attributes, StoredAttribution, read_attribution, write_attribution
from orchestrator.store.durable import write_atomically
from orchestrator.store.lease import Lease, holder
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import read_plain
from orchestrator.store.run_store import RunStore
from orchestrator.store.side_files import read_json
from workers.errors import StoreError
from workers.runs import Checkpoint, Outcome

N, T = 6, 3
LAYOUT = DesignLayout("fit", "subsets", "fit", 4, 2)


@pytest.fixture
def paths(tmp_path: Path) -> SweepPaths:
    """A sweep of four runs, two of them done, with an attribution."""
    import torch

    made = SweepPaths(tmp_path / "sweep")
    store = RunStore.create(made, config_hash="x", n=N, t=T, measures=("margin",), designs=(LAYOUT,))
    masks = np.ones((4, N), dtype=bool)
    store.write_plan("fit", 0, masks, np.arange(4, dtype=np.uint32), np.arange(4), np.zeros(4, dtype=np.int32))
    states = (Checkpoint(1, 1, 0.1, {"w": torch.zeros(2)}),)
    outcomes = [Outcome(row, {"margin": np.zeros(T, np.float32)}, states) for row in (0, 1)]
    store.commit("fit", 0, outcomes, worker="w", started=1.0, seconds=1.0)
    store.close()
    tau = np.arange(N * T, dtype=np.float32).reshape(N, T)
    write_attribution(made, "mine", StoredAttribution(tau, Attributes(estimator="random", measure="margin")))
    return made


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with a file that is nobody's business."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    return folder


def linked(path: Path, target: Path) -> None:
    """Move a file or folder away, and leave a link to something in its place."""
    if path.exists():
        path.rename(path.with_name("moved"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def use(paths: SweepPaths) -> None:
    """Do with a sweep what is done with one that goes on."""
    with RunStore.open(paths, write=True) as store:
        store.verify("fit")
        store.checkpoints("fit", 0)
        store.forget("fit", range(4))
    read_attribution(paths, "mine")
    write_attribution(paths, "mine", read_attribution(paths, "mine"))


class TestLinks:
    """None is followed below the sweep's own folder."""

    def test_a_linked_lease_does_not_overwrite_its_target(self, paths: SweepPaths, outside: Path) -> None:
        linked(paths.lease, outside / "precious")
        for act in (Lease, holder):
            with pytest.raises(StoreError, match="lease is a link"):
                act(paths)
        assert (outside / "precious").read_text() == "precious"

    def test_a_link_to_nothing_makes_no_file(self, paths: SweepPaths, outside: Path) -> None:
        linked(paths.lease, outside / "new")
        with pytest.raises(StoreError, match="lease is a link"):
            Lease(paths)
        assert not (outside / "new").exists()

    def test_cleaning_removes_nothing_through_a_link(self, paths: SweepPaths, outside: Path) -> None:
        (outside / "theirs.partial").write_text("")
        linked(paths.checkpoints, outside)
        with pytest.raises(StoreError, match="checkpoints is a link"):
            RunStore.open(paths, write=True)
        assert (outside / "theirs.partial").exists()

    def test_forgetting_removes_nothing_through_a_link(self, paths: SweepPaths, outside: Path) -> None:
        (outside / "0").mkdir()
        (outside / "0" / "theirs").write_text("")
        with RunStore.open(paths, write=True) as store:
            linked(paths.checkpoints / "fit", outside)
            with pytest.raises(StoreError, match="fit is a link"):
                store.forget("fit", [0])
        assert (outside / "0" / "theirs").exists()

    @pytest.mark.parametrize(
        "victim",
        [
            *("runs.zarr", "runs.zarr/zarr.json", "runs.zarr/fit", "runs.zarr/fit/masks/zarr.json"),
            *("runs.zarr/fit/masks/c.0.0", "runs.zarr/fit/outputs/margin/c.0.0", "ledger", "ledger/fit"),
            *("ledger/fit/000000.json", "ledger/fit/plan.json", "ledger/fit/committed", "checkpoints/fit/0"),
            *("checkpoints/fit/0/1.safetensors", "attributions.zarr", "attributions.zarr/mine"),
            *(
                "attributions.zarr/mine/zarr.json",
                "attributions.zarr/mine/values",
                "attributions.zarr/mine/values/c/0/0",
            ),
        ],
    )
    def test_whatever_is_a_link_is_refused_by_its_name(self, paths: SweepPaths, victim: str) -> None:
        """The link leads to the very same content: to follow it would go unnoticed."""
        place = paths.root / victim
        elsewhere = paths.root.parent / "elsewhere"
        place.rename(elsewhere)
        place.symlink_to(elsewhere)
        with pytest.raises(StoreError, match=f"{place} is a link") as caught:
            use(paths)
        assert "\n" not in str(caught.value)

    def test_nothing_is_written_through_a_link(self, paths: SweepPaths, outside: Path) -> None:
        linked(paths.attributions / "other", outside)
        with pytest.raises(StoreError, match="other is a link"):
            write_attribution(paths, "other", read_attribution(paths, "mine"))
        linked(paths.pieces, outside)
        with pytest.raises(StoreError, match="pieces is a link"):
            write_atomically(paths.pieces / "x", b"")
        assert os.listdir(outside) == ["precious"]

    def test_the_sweep_itself_may_be_a_link(self, paths: SweepPaths, tmp_path: Path) -> None:
        (tmp_path / "shortcut").symlink_to(paths.root)
        use(SweepPaths(tmp_path / "shortcut"))


class TestOtherThings:
    """A pipe is not waited for, a device is not read, a file with holes is not believed."""

    def test_a_pipe(self, paths: SweepPaths) -> None:
        os.mkfifo(paths.stopping)
        with pytest.raises(StoreError, match=r"stopping\.json is no plain file"):
            read_json(paths.stopping, "delete it", lambda plain: plain)

    def test_a_file_with_holes(self, paths: SweepPaths) -> None:
        paths.record("fit", 0).write_bytes(b"")
        os.truncate(paths.record("fit", 0), 2**40)
        with (
            RunStore.open(paths) as store,
            pytest.raises(StoreError, match="1,099,511,627,776 bytes, expected at most"),
        ):
            store.states("fit")
        os.truncate(paths.record("fit", 0), 2**43)
        with pytest.raises(StoreError, match="bytes, expected at most"):
            read_plain(paths.record("fit", 0))


@contextmanager
def within(limit: int) -> Iterator[None]:
    """Fail where more bytes than the limit are allocated at once (NumPy tells tracemalloc)."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    plain = json.loads(path.read_text())
    edit(plain)
    path.write_text(json.dumps(plain))


HUGE = 30_000
"""A side of an array of 3.4 GiB."""


class TestSizes:
    """What metadata ask for is held against the manifest and against the bytes that are there, and allocated after that."""

    def test_an_attribution_of_another_shape(self, paths: SweepPaths) -> None:
        def grow(plain: dict[str, Any]) -> None:
            plain["shape"] = plain["chunk_grid"]["configuration"]["chunk_shape"] = [HUGE, HUGE]

        change(paths.attribution("mine") / "values" / "zarr.json", grow)
        with within(2**25), pytest.raises(StoreError, match=r"has shape \(30000, 30000\), expected \(6, 3\)"):
            read_attribution(paths, "mine")

    @pytest.mark.parametrize("chunks", [[HUGE, HUGE], [1, HUGE]])
    def test_an_attribution_and_a_manifest_that_agree(self, paths: SweepPaths, chunks: list[int]) -> None:
        def grow(plain: dict[str, Any]) -> None:
            plain["shape"], plain["chunk_grid"]["configuration"]["chunk_shape"] = [HUGE, HUGE], chunks

        change(paths.attribution("mine") / "values" / "zarr.json", grow)
        change(paths.runs / "zarr.json", lambda plain: plain["attributes"].update(n=HUGE, t=HUGE))
        with within(2**25), pytest.raises(StoreError, match=r"3,600,000,000 bytes cannot be in its 1 of"):
            read_attribution(paths, "mine")

    def test_a_chunk_of_a_few_bytes(self, paths: SweepPaths) -> None:
        """All metadata agree that a pack is large; its chunk is not."""
        sizes = {"masks": HUGE, "outputs/margin": T, "seeds": None, "subsets": None, "repeats": None}
        for name, columns in sizes.items():
            shape = [HUGE] if columns is None else [HUGE, columns]

            def grow(plain: dict[str, Any], shape: list[int] = shape) -> None:
                plain["shape"] = plain["chunk_grid"]["configuration"]["chunk_shape"] = shape

            change(paths.runs / "fit" / name / "zarr.json", grow)
        designs = [{"name": "fit", "kind": "subsets", "purpose": "fit", "runs": HUGE, "pack": HUGE}]
        change(paths.runs / "zarr.json", lambda plain: plain["attributes"].update(n=HUGE, designs=designs))
        with within(2**25), RunStore.open(paths) as store:
            damages = store.verify("fit")
        assert "too few for the 112,500,001 of a chunk" in damages[0].reason

    def test_a_manifest_that_asks_for_more_than_there_is(self, paths: SweepPaths) -> None:
        designs = [{"name": "fit", "kind": "subsets", "purpose": "fit", "runs": 10**15, "pack": 10**6}]
        change(paths.runs / "zarr.json", lambda plain: plain["attributes"].update(designs=designs))
        with within(2**25), pytest.raises(StoreError, match="bytes, and this machine has"):
            RunStore.open(paths)

    def test_a_document_whose_aliases_are_billions(self) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 10)]
        for text in ("\n".join(lines), "a: &a [*a]", "[" * 10_000):
            with pytest.raises(yaml_format.YAMLError):
                yaml_format.load(text)

    def test_a_checkpoint_of_nonsense_with_a_hash_to_fit(self, paths: SweepPaths) -> None:
        from orchestrator.store.checkpoints import checkpoint_hash, read_checkpoint

        path = paths.checkpoint("fit", 0, 1)
        header = (
            b'{"__metadata__":{"epoch":"1","step":"1","learning_rate":"1"},"w":{"dtype":"F32","shape":[1000000000],'
        )
        header += b'"data_offsets":[0,4000000000]}}'
        for content in (len(header).to_bytes(8, "little") + header, (2).to_bytes(8, "little") + b"[]", b"[" * 10**5):
            path.write_bytes(content)
            digest = checkpoint_hash(path)
            assert digest is not None
            with within(2**25), pytest.raises(StoreError, match="is not a checkpoint of counterfactory"):
                read_checkpoint(path, digest)


def test_what_failed_runs_said_is_for_their_owner_alone(paths: SweepPaths) -> None:
    from orchestrator.store.attributions import keep_failure
    from workers.runs import Failure

    with RunStore.open(paths, write=True) as store:
        failed = Outcome(2, failure=Failure("KeyError", "'password'", "Traceback ..."))
        store.commit("fit", 1, [failed], worker="w", started=1.0, seconds=1.0)
    files = [paths.lease, paths.record("fit", 1), keep_failure(paths, "mine", "Traceback ...")]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == {path.name: "0o600" for path in files}
