import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.store import ledger as ledger_module
from orchestrator.store.hashes import row_hashes
from orchestrator.store.ledger import DONE, FAILED, PENDING, CommitRecord, Ledger, PackRecord, PlanRecord, RowRecord
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import read_plain
from workers.errors import StoreError
from workers.runs import Failure

LAYOUT = DesignLayout("fit", "subsets", "fit", runs=10, pack=4)


@pytest.fixture
def paths(tmp_path: Path) -> SweepPaths:
    return SweepPaths(tmp_path)


def done(row: int) -> RowRecord:
    return RowRecord(row=row, state="done", seconds=0.5, hash="ab" * 16)


def failed(row: int) -> RowRecord:
    failure = Failure("ValueError", "no é", "Traceback ...\nValueError: no é")
    return RowRecord(row=row, state="failed", seconds=0.25, failure=failure)


def pack_record(pack: int, *rows: RowRecord) -> PackRecord:
    commit = CommitRecord(worker="w", started=100.0, seconds=2.0, rows=tuple(row.row for row in rows))
    return PackRecord(design="fit", pack=pack, commits=(commit,), rows=rows)


def test_rows_without_a_record_are_pending(paths: SweepPaths) -> None:
    ledger = Ledger(paths, LAYOUT)
    assert ledger.states().tolist() == [PENDING] * 10
    assert ledger.states().dtype == np.int8
    assert ledger.failures() == []
    assert ledger.record(2).rows == ()


def test_what_is_written_is_read_by_this_and_any_other_ledger(paths: SweepPaths) -> None:
    writer, reader = Ledger(paths, LAYOUT), Ledger(paths, LAYOUT)
    assert reader.states().tolist() == [PENDING] * 10
    writer.write(pack_record(2, done(8), failed(9)))
    writer.write(pack_record(0, failed(1), done(3)))
    expected = [PENDING, FAILED, PENDING, DONE, 0, 0, 0, 0, DONE, FAILED]
    for ledger in (writer, reader, Ledger(paths, LAYOUT)):
        assert ledger.states().tolist() == expected
        assert [(f.row, f.kind, f.message) for f in ledger.failures()] == [
            (1, "ValueError", "no é"),
            (9, "ValueError", "no é"),
        ]
        assert ledger.record(0) == pack_record(0, failed(1), done(3))
        assert ledger.record(0).commits[0].finished == 102.0


def test_a_replaced_record_is_noticed_and_unchanged_ones_are_not_read_again(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = Ledger(paths, LAYOUT, exclusive=True), Ledger(paths, LAYOUT)
    for pack in range(3):
        writer.write(pack_record(pack, done(4 * pack)))
    reader.states()
    read: list[str] = []
    monkeypatch.setattr(
        ledger_module, "read_plain", lambda path, most: read.append(path.name) or read_plain(path, most)
    )  # type: ignore[func-returns-value]
    writer.write(pack_record(1, failed(4)))
    assert reader.states().tolist() == [DONE, 0, 0, 0, FAILED, 0, 0, 0, DONE, 0]
    assert read == ["000001.json"]


class Counted:
    """How often a ledger's folder was looked at, and a record parsed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.looks = self.parses = 0
        scandir, validate = os.scandir, PackRecord.model_validate_json

        def look(folder: Path) -> object:
            self.looks += 1
            return scandir(folder)

        def parse(content: bytes) -> PackRecord:
            self.parses += 1
            return validate(content)

        monkeypatch.setattr("orchestrator.store.ledger.os.scandir", look)
        monkeypatch.setattr(PackRecord, "model_validate_json", parse)

    def taken(self) -> tuple[int, int]:
        """Return looks and parses since the last call."""
        taken = (self.looks, self.parses)
        self.looks = self.parses = 0
        return taken


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def test_whoever_alone_writes_looks_once(paths: SweepPaths, counted: Counted) -> None:
    for pack in range(2):
        Ledger(paths, LAYOUT).write(pack_record(pack, done(4 * pack)))
    counted.taken()
    ledger = Ledger(paths, LAYOUT, exclusive=True)
    expected = [DONE, 0, 0, 0, DONE, 0, 0, 0, 0, 0]
    for _ in range(3):
        assert ledger.states().tolist() == expected
    ledger.write(pack_record(2, failed(9)))
    ledger.erase(0)
    for row in range(10):
        assert ledger.states(row, row + 1).tolist() == [[0, 0, 0, 0, DONE, 0, 0, 0, 0, FAILED][row]]
    assert [(summary.pack, len(summary.rows)) for summary in ledger.summaries()] == [(0, 0), (1, 1), (2, 1)]
    assert [failure.row for failure in ledger.failures()] == [9]
    assert counted.taken() == (1, 2)


def test_a_reader_looks_once_a_question_and_once_in_a_snapshot(paths: SweepPaths, counted: Counted) -> None:
    writer, reader = Ledger(paths, LAYOUT, exclusive=True), Ledger(paths, LAYOUT)
    writer.write(pack_record(0, done(0)))
    assert counted.taken() == (1, 0), "the writer lists what is there, and reads none of it"
    for _ in range(3):
        reader.states()
    assert counted.taken() == (3, 1)
    with reader.snapshot():
        before = reader.states()
        writer.write(pack_record(1, done(4), done(5)))
        with reader.snapshot():
            assert np.array_equal(reader.states(), before)
        assert reader.failures() == []
        assert len(reader.summaries()) == 1
    assert counted.taken() == (1, 0)
    assert reader.states()[4:6].tolist() == [DONE, DONE]
    with reader.snapshot():
        assert len(reader.summaries()) == 2
    assert counted.taken() == (2, 1)


def test_what_others_write_after_the_lease_is_given_back_is_seen(paths: SweepPaths) -> None:
    ledger = Ledger(paths, LAYOUT, exclusive=True)
    ledger.write(pack_record(0, done(0)))
    assert ledger.states()[0] == DONE
    ledger.share()
    Ledger(paths, LAYOUT).write(pack_record(1, done(4)))
    assert ledger.states().nonzero()[0].tolist() == [0, 4]


def test_a_write_that_was_cut_off_is_looked_for_on_the_disk(paths: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(paths, LAYOUT, exclusive=True)
    ledger.write(pack_record(0, done(0)))
    assert ledger.states()[0] == DONE
    with monkeypatch.context() as patch:

        def written_but_cut_off(path: Path, content: bytes, *, private: bool) -> None:
            path.write_bytes(content)
            raise KeyboardInterrupt

        patch.setattr("orchestrator.store.ledger.write_atomically", written_but_cut_off)
        with pytest.raises(KeyboardInterrupt):
            ledger.write(pack_record(1, done(4)))
    assert ledger.states().nonzero()[0].tolist() == [0, 4]


def test_a_ledger_grows_with_its_design(paths: SweepPaths, counted: Counted) -> None:
    ledger = Ledger(paths, LAYOUT, exclusive=True)
    ledger.write(pack_record(2, done(9)))
    ledger.states()
    counted.taken()
    ledger.resize(replace(LAYOUT, runs=14))
    ledger.write(PackRecord(design="fit", pack=3, rows=(done(13),)))
    assert ledger.states().nonzero()[0].tolist() == [9, 13]
    assert ledger.states().shape == (14,)
    assert counted.taken() == (0, 0)


def test_the_first_pack_beyond_a_reader_s_design_is_none_of_its_business(paths: SweepPaths) -> None:
    reader, grown = Ledger(paths, LAYOUT), Ledger(paths, replace(LAYOUT, runs=14))
    grown.write(pack_record(0, done(1)))
    grown.write(PackRecord(design="fit", pack=3, rows=(done(13),)))
    assert reader.states().nonzero()[0].tolist() == [1]
    assert [summary.pack for summary in reader.summaries()] == [0]
    assert reader.lost() == ()


def test_a_summary_has_what_sums_are_made_of(paths: SweepPaths) -> None:
    Ledger(paths, LAYOUT).write(pack_record(1, done(5), failed(6)))
    (summary,) = Ledger(paths, LAYOUT).summaries()
    assert (summary.rows, summary.seconds, summary.hashes) == ((5, 6), (0.5, 0.25), ("ab" * 16, None))
    assert [(commit.worker, commit.started, commit.rows) for commit in summary.commits] == [("w", 100.0, (5, 6))]


def test_an_erased_record_is_pending_again(paths: SweepPaths) -> None:
    ledger = Ledger(paths, LAYOUT)
    ledger.write(pack_record(1, done(5)))
    assert ledger.states()[5] == DONE
    ledger.erase(1)
    assert ledger.states().tolist() == [PENDING] * 10


def test_a_record_is_plain_json(paths: SweepPaths) -> None:
    Ledger(paths, LAYOUT).write(pack_record(1, done(5), failed(6)))
    record = json.loads(paths.record("fit", 1).read_text())
    assert record["format"] == 1
    assert (record["design"], record["pack"]) == ("fit", 1)
    assert [row["state"] for row in record["rows"]] == ["done", "failed"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"format": 1, "desi',
        b"[]",
        pack_record(1, done(3)).model_dump_json().encode(),
        pack_record(1, done(8)).model_dump_json().encode(),
        pack_record(0, done(1)).model_dump_json().encode(),
        pack_record(1, done(4), done(4)).model_dump_json().encode(),
        pack_record(1, done(4)).model_dump_json().replace('"done"', '"dome"').encode(),
    ],
)
def test_a_record_that_makes_no_sense_is_refused_by_name(paths: SweepPaths, content: bytes) -> None:
    ledger = Ledger(paths, LAYOUT)
    ledger.write(pack_record(1, done(4)))
    paths.record("fit", 1).write_bytes(content)
    for read in (ledger.states, lambda: ledger.record(1)):
        with pytest.raises(StoreError, match=r"000001\.json is damaged"):
            read()


def test_other_files_in_the_folder_are_left_alone(paths: SweepPaths) -> None:
    ledger = Ledger(paths, LAYOUT)
    ledger.write_plan(PlanRecord(runs=10, packs=("a", "b", "c")))
    (paths.design_ledger("fit") / ".000001.json.partial").write_text("half")
    assert ledger.states().tolist() == [PENDING] * 10


@pytest.mark.parametrize(
    "content", ["", "{", '{"format": 1, "runs": 10, "packs": ["a"]}', '{"format": 1, "runs": 11, "packs": []}']
)
def test_a_damaged_plan_record_counts_as_no_plan(paths: SweepPaths, content: str) -> None:
    ledger = Ledger(paths, LAYOUT)
    ledger.write_plan(PlanRecord(runs=10, packs=("a", "b", "c")))
    assert ledger.plan().runs == 10
    paths.plan_record("fit").write_text(content)
    assert ledger.plan() == PlanRecord(runs=0, packs=())


def row_hash(mask: np.ndarray, seed: int, outputs: list[np.ndarray], checkpoints: dict[int, str]) -> str:
    return row_hashes(
        {"masks": mask[None], "seeds": np.array([seed], np.uint32)}, [one[None] for one in outputs], [checkpoints]
    )[0]


def test_a_row_hash_depends_on_everything_it_covers() -> None:
    mask, outputs = np.zeros(13, dtype=bool), [np.zeros(3, np.float32), np.ones(3, np.float32)]
    flipped = mask.copy()
    flipped[12] = True
    variants = [
        row_hash(mask, 1, outputs, {}),
        row_hash(flipped, 1, outputs, {}),
        row_hash(mask, 2**32 - 1, outputs, {}),
        row_hash(mask, 1, outputs[::-1], {}),
        row_hash(mask, 1, outputs, {0: "aa", 1: "bb"}),
        row_hash(mask, 1, outputs, {0: "bb", 1: "aa"}),
    ]
    assert len(set(variants)) == len(variants)
    assert row_hash(mask, 1, outputs, {1: "bb", 0: "aa"}) == variants[4]


def test_a_row_hash_is_that_of_every_store_made_so_far() -> None:
    masks = np.arange(39).reshape(3, 13) % 4 == 1
    seeds = np.array([0, 7, 2**32 - 1], dtype=np.uint32)
    outputs = [np.arange(9, dtype=np.float32).reshape(3, 3), -np.arange(6, dtype=np.float32).reshape(3, 2)[:, ::-1]]
    kept = [{}, {10: "ab", 2: "cd"}, {0: "ef"}]
    for row, made in enumerate(row_hashes({"masks": masks, "seeds": seeds}, outputs, kept)):
        content = np.packbits(masks[row]).tobytes() + seeds[row].astype("<u4").tobytes()
        content += b"".join(values[row].astype("<f4").tobytes() for values in outputs)
        content += "".join(kept[row][epoch] for epoch in sorted(kept[row])).encode()
        assert made == hashlib.blake2b(content, digest_size=16).hexdigest()
