"""A ledger record that is lost is told from one never written, whatever crashes."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.store import committed
from orchestrator.store.committed import CommittedPacks
from orchestrator.store.conformance.trial import Trial, planned
from orchestrator.store.ledger import DONE, PENDING
from orchestrator.store.paths import SweepPaths
from orchestrator.store.testing import Folder
from workers.errors import StoreError


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was brought to the disk so far: only noted down."""
    noted: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: noted.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    return noted


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    """A planned sweep: 10 rows in packs of 4, 4 and 2; packs 0 and 1 are committed."""
    numbers = itertools.count()
    with planned(lambda: Folder(tmp_path / str(next(numbers)))) as made:
        made.commit(range(8))
        yield made


def paths(trial: Trial) -> SweepPaths:
    return trial.store.paths


def lose(trial: Trial, pack: int) -> Path:
    record = paths(trial).record("fit", pack)
    trial.close()
    record.unlink()
    return record


def listed(trial: Trial) -> list[str]:
    return paths(trial).committed("fit").read_text().splitlines()


def die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("write", [False, True])
def test_a_lost_record_is_found_named_and_mended(trial: Trial, write: bool) -> None:
    record = lose(trial, 1)
    with trial.storage.open(write=write) as store:
        (damage,) = store.verify("fit")
        assert (damage.what, damage.pack, damage.rows, damage.path) == ("ledger", 1, (4, 5, 6, 7), record)
        assert str(damage).startswith(
            f"{record} is missing, though its pack was committed: run `counterfactory verify`"
        )
        assert store.lost("fit") == [damage]
        assert store.states("fit").tolist() == [DONE] * 4 + [PENDING] * 6
    trial.store.forget("fit", [5])
    assert trial.store.states("fit").tolist() == [DONE] * 4 + [PENDING] * 6
    trial.close()
    assert trial.store.verify("fit") == trial.store.lost("fit") == []
    trial.commit(range(4, 10))
    trial.expect(range(10))


def test_who_computes_from_rows_refuses_to_do_without_those_that_were_lost(trial: Trial) -> None:
    record = lose(trial, 1)
    with trial.storage.open() as store:
        assert np.isfinite(store.outputs("fit", "loss", 0, 4)).all()
        assert np.isnan(store.outputs("fit", "loss", 8, 10)).all()
        for read in (
            lambda: store.finished("fit"),
            lambda: store.outputs("fit", "loss"),
            lambda: store.outputs("fit", "loss", 7, 8),
        ):
            with pytest.raises(StoreError, match=rf"{record} is missing, .* then `counterfactory run`") as caught:
                read()
            assert "\n" not in str(caught.value)


def test_a_pack_never_committed_and_one_forgotten_are_no_damage(trial: Trial) -> None:
    assert listed(trial) == ["000000", "000001"]
    trial.store.forget("fit", range(4, 8))
    trial.close()
    trial.expect(range(4))
    assert trial.store.finished("fit").tolist() == [0, 1, 2, 3]


def test_a_damaged_record_that_is_forgotten_is_not_lost(trial: Trial) -> None:
    record = paths(trial).record("fit", 1)
    trial.close()
    record.write_bytes(b"{")
    trial.store.forget("fit", [4])
    trial.close()
    trial.expect(range(4))


def test_a_sweep_made_without_the_list_is_read_without_complaint_and_listed_when_it_goes_on(trial: Trial) -> None:
    paths(trial).committed("fit").unlink()
    lose(trial, 0)
    trial.expect(range(4, 8))
    trial.close()
    trial.commit([8, 9])
    assert listed(trial) == ["000001", "000002"]
    lose(trial, 1)
    assert [damage.pack for damage in trial.store.lost("fit")] == [1]


def test_a_crash_between_record_and_list_is_harmless(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(CommittedPacks, "add", die)
        with pytest.raises(KeyboardInterrupt):
            trial.commit([8])
    trial.close()
    assert listed(trial) == ["000000", "000001"]
    trial.expect([*range(9)])
    trial.close()
    trial.commit([9])
    assert listed(trial) == ["000000", "000001", "000002"]
    trial.expect(range(10))


def test_a_crash_before_the_record_lists_nothing(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.store.ledger.write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            trial.commit([8])
    trial.close()
    assert listed(trial) == ["000000", "000001"]
    trial.expect(range(8))


def test_a_record_is_on_the_disk_before_it_is_listed_and_the_list_before_a_commit_returns(
    trial: Trial, synced: list[str]
) -> None:
    folder = str(paths(trial).design_ledger("fit"))
    synced.clear()
    trial.commit([8])
    assert ".000002.json." in synced[-3]
    assert synced[-2:] == [folder, f"{folder}/committed"]


@pytest.mark.parametrize("torn", [b"0", b"00000", b"000002", b"\0\0\0"])
def test_a_line_that_was_cut_off_does_not_count(trial: Trial, torn: bytes) -> None:
    path = paths(trial).committed("fit")
    trial.close()
    path.write_bytes(path.read_bytes() + torn)
    trial.expect(range(8))
    trial.close()
    trial.commit([8])
    assert listed(trial) == ["000000", "000001", "000002"]


@pytest.mark.parametrize("garbage", [b"\x80\xff\n", b"one\n", b"{}\n", b"000000\n\n000001\n", b"-1\n"])
def test_a_list_that_makes_no_sense_is_one_line_with_the_remedy(trial: Trial, garbage: bytes) -> None:
    path = paths(trial).committed("fit")
    trial.close()
    path.write_bytes(garbage)
    with trial.storage.open() as store:
        for read in (store.states, store.finished, store.verify):
            with pytest.raises(StoreError, match=rf"{path} is damaged: delete it, and `counterfactory run`"):
                read("fit")
    path.unlink()
    trial.expect(range(8))


def test_a_commit_adds_one_line_however_many_there_are(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = os.write

    def noting(descriptor: int, content: bytes) -> int:
        written.append(content)
        return write(descriptor, content)

    whole: list[Path] = []
    monkeypatch.setattr("orchestrator.store.committed.write_atomically", lambda path, _: whole.append(path))
    monkeypatch.setattr("orchestrator.store.committed.os.write", noting)
    trial.store.extend("fit", 42)
    trial.write_plan(42)
    trial.commit(range(8, 42))
    assert written == [b"%06d\n" % pack for pack in range(2, 11)]
    assert whole == []


def test_a_reader_never_takes_a_pack_that_is_being_committed_for_lost(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def slow(path: Path) -> list[os.DirEntry[str]]:
        entries = list(scandir(path))
        if Path(path) == paths(trial).design_ledger("fit"):
            monkeypatch.setattr("orchestrator.store.ledger.os.scandir", scandir)
            trial.commit([8, 9])
        return entries

    with trial.storage.open() as reader:
        monkeypatch.setattr("orchestrator.store.ledger.os.scandir", slow)
        assert reader.lost("fit") == []
        assert reader.finished("fit").tolist() == list(range(10))


def test_a_list_that_has_changed_is_read_again_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Path] = []
    read = committed.read_plain
    monkeypatch.setattr(committed, "read_plain", lambda path, most: looks.append(path) or read(path, most))  # type: ignore[func-returns-value]
    reader, writer = (CommittedPacks(tmp_path / "committed") for _ in range(2))
    assert reader.read() == frozenset()
    assert writer.bring_up_to_date([7, 3]) == {3, 7}
    looks.clear()
    assert [reader.read(), reader.read(), looks] == [{3, 7}, {3, 7}, [reader.path]]
    writer.add(12)
    assert reader.read() == {3, 7, 12}
    assert reader.path.read_text() == "000003\n000007\n000012\n"


@pytest.mark.parametrize(
    ("content", "packs", "text"),
    [
        (b"000002\n000001\n", [1], b"000002\n000001\n"),
        (b"000002\n", [1], b"000001\n000002\n"),
        (b"000002\n00000", [], b"000002\n"),
        (b"00", [4], b"000004\n"),
        (b"", [], None),
        (None, [], None),
        (None, [1000000], b"1000000\n"),
    ],
)
def test_a_list_is_written_anew_only_where_it_lacks_something(
    tmp_path: Path, content: bytes | None, packs: list[int], text: bytes | None
) -> None:
    path = tmp_path / "committed"
    if content is not None:
        path.write_bytes(content)
    before = path.stat().st_ino if path.exists() else None
    listed = CommittedPacks(path).bring_up_to_date(packs)
    assert set(packs) <= listed == CommittedPacks(path).read()
    if text is None or text == content:
        assert (path.stat().st_ino if path.exists() else None) == before
    else:
        assert path.read_bytes() == text


def test_a_list_that_took_the_place_of_one_as_long_and_as_old_is_read(tmp_path: Path) -> None:
    path, other = tmp_path / "committed", tmp_path / "other"
    path.write_bytes(b"000001\n")
    packs = CommittedPacks(path)
    assert packs.read() == {1}
    other.write_bytes(b"000002\n")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(other, path)
    assert packs.read() == {2}
