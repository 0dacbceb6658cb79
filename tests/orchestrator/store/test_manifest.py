"""What a manifest says, and manifests that no store has."""

from typing import Any

import pytest

from orchestrator.store import manifest
from orchestrator.store.manifest import DesignLayout, Manifest, parse_manifest, refuse_oversized
from workers.errors import StoreError

LAYOUT = DesignLayout("fit", "subsets", "fit", 10, 4)
GOOD = Manifest(config_hash="x", n=3, t=2, measures=("loss",), designs=(LAYOUT,))


def test_a_design_is_cut_into_packs_and_the_last_may_be_short() -> None:
    assert (LAYOUT.packs, DesignLayout("a", "b", "fit", 8, 4).packs) == (3, 2)
    assert [LAYOUT.rows(pack) for pack in range(3)] == [range(4), range(4, 8), range(8, 10)]
    assert [LAYOUT.pack_of(row) for row in range(10)] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    for pack in (-1, 3):
        with pytest.raises(ValueError, match=rf"^design 'fit' has packs 0\.\.2, not {pack}$"):
            LAYOUT.rows(pack)
    for row in (-1, 10):
        with pytest.raises(ValueError, match=rf"^design 'fit' has rows 0\.\.9, not {row}$"):
            LAYOUT.pack_of(row)


def test_what_was_written_is_read() -> None:
    assert parse_manifest(GOOD.model_dump(mode="json"), "here") == GOOD


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "here is not a run store of counterfactory: its attributes name no format and version"),
        ({"format_version": None}, "here is not a run store of counterfactory"),
        ({"format_version": "1"}, "here is not a run store of counterfactory"),
        ({"format_version": 3}, "here has format version 3, this counterfactory reads up to version 2: upgrade it$"),
        ({"n": 0}, "here is damaged: n Input should be greater than 0"),
        ({"measures": []}, "here is damaged: measures Tuple should have at least 1 item"),
        ({"measures": ["a", "b", "a"]}, "the name 'a' is used twice"),
        ({"measures": ["a/b"]}, "'a/b' cannot name a folder"),
    ],
)
def test_what_no_store_says_is_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StoreError, match=f"^{said}") as caught:
        parse_manifest(GOOD.model_dump(mode="json") | changes, "here")
    assert "\n" not in str(caught.value)


def test_a_name_of_a_design_and_of_a_measure_may_be_one() -> None:
    Manifest(config_hash="x", n=3, t=2, measures=("fit",), designs=(LAYOUT,)).check_names()
    with pytest.raises(
        StoreError, match=r"^the name 'fit' is used twice; names of designs and of measures are unique$"
    ):
        Manifest(config_hash="x", n=3, t=2, measures=("a",), designs=(LAYOUT, LAYOUT)).check_names()


@pytest.mark.parametrize(
    ("small", "memory", "refused"), [(99, 99, True), (99, 100, False), (100, 1, False), (99, 1, True)]
)
def test_what_is_larger_than_the_memory_and_not_small_is_refused(
    monkeypatch: pytest.MonkeyPatch, small: int, memory: int, refused: bool
) -> None:
    monkeypatch.setattr(manifest, "SMALL", small)
    monkeypatch.setattr(manifest, "total_bytes", lambda: memory)
    if refused:
        with pytest.raises(StoreError, match=f"^this takes 100 bytes, and this machine has {memory}$"):
            refuse_oversized("this", 100)
    else:
        refuse_oversized("this", 100)


@pytest.mark.parametrize(
    ("n", "t", "what", "size"),
    [(3, 2, "a pack", 4 * 8), (30, 2, "a pack", 4 * 30), (1, 1, "a pack", 4 * 4), (3, 2, "the ledger", 3 * 4)],
)
def test_a_pack_and_a_ledger_must_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch, n: int, t: int, what: str, size: int
) -> None:
    told: dict[str, int] = {}
    monkeypatch.setattr(manifest, "refuse_oversized", lambda name, size: told.update({name: size}))
    parse_manifest(GOOD.model_dump(mode="json") | {"n": n, "t": t}, "here")
    assert told[f"here: {what} of design 'fit'"] == size
