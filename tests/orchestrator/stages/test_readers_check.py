"""Whoever computes from rows refuses those that are not what was written, and overwrites nothing."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import orchestrator
from orchestrator.attribution import evidence
from orchestrator.attribution.early_stopping import Stopper
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError

FIT, HELD_OUT = "runs.zarr/fit", "runs.zarr/heldout"


def swap(array: Path) -> None:
    """Let two chunks of an array change places: their checksums are good."""
    first, second = sorted(array.glob("c.[01]*"))
    aside = array / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def reverse(array: Path) -> None:
    """Reverse the rows of the first chunk, with a good checksum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = zarr.open_array(array, mode="r+")
        rows = min(opened.chunks[0], opened.shape[0])
        opened[:rows] = np.asarray(opened[:rows])[::-1]


def kept(sweep: Path) -> dict[str, bytes]:
    """What commands write, but for the lease."""
    found = [path for path in sweep.rglob("*") if path.is_file() and path.name != "lease"]
    return {str(path.relative_to(sweep)): path.read_bytes() for path in found}


COMMANDS: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("attribute", ("--again",), (FIT,)),
    ("score", (), (HELD_OUT,)),
    ("report", (), (HELD_OUT,)),
    ("export", ("--to", "out.npz"), (FIT, HELD_OUT)),
    ("export", ("--to", "out.parquet"), (FIT, HELD_OUT)),
]
PLACES = [(name, extra, place) for name, extra, places in COMMANDS for place in places]
HARMS = [(harm, array) for harm in (swap, reverse) for array in ("outputs/margin", "outputs/loss", "masks", "seeds")]


@pytest.mark.parametrize(("name", "extra", "design"), PLACES, ids=str)
@pytest.mark.parametrize(("harm", "array"), HARMS, ids=lambda value: getattr(value, "__name__", value))
def test_a_command_refuses_rows_that_are_not_what_was_written(
    name: str,
    extra: tuple[str, ...],
    design: str,
    harm: Callable[[Path], None],
    array: str,
    sweep_copy: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    harm(sweep_copy / design / array)
    before = kept(sweep_copy)
    line = refused(name, sweep_copy, *extra)
    assert str(sweep_copy / design) in line
    assert "run `counterfactory verify` on the sweep, then `counterfactory run` to put it right" in line
    assert kept(sweep_copy) == before
    assert not list(tmp_path.glob("out.*"))


def test_a_score_on_runs_that_were_fitted_on_is_refused_by_masks_that_are_checked(
    sweep_copy: Path, refused: Callable[..., str]
) -> None:
    swap(sweep_copy / FIT / "masks")
    assert f"{FIT}/masks/c." in refused("score", sweep_copy)


@pytest.mark.parametrize(("name", "extra", "design"), PLACES, ids=str)
def test_a_command_refuses_to_do_without_rows_whose_record_is_lost(
    name: str, extra: tuple[str, ...], design: str, sweep_copy: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    record = sweep_copy / "ledger" / Path(design).name / "000000.json"
    record.unlink()
    before = kept(sweep_copy)
    extra = tuple(str(tmp_path / one) if one.startswith("out.") else one for one in extra)
    assert f"{record} is missing, though its pack was committed: run `counterfactory" in refused(
        name, sweep_copy, *extra
    )
    assert kept(sweep_copy) == before
    assert not list(tmp_path.glob("out.*"))
    with pytest.raises(StoreError, match="though its pack was committed"):
        orchestrator.open_sweep(sweep_copy).runs(Path(design).name)


def test_a_lost_record_is_shown_and_its_pack_is_trained_again(
    sweep_copy: Path, tiny_yaml: Path, command: Callable[..., Any], ray_started: None
) -> None:
    record = sweep_copy / "ledger/heldout/000001.json"
    record.unlink()
    shown = command("status", sweep_copy)
    assert shown.code == 0
    assert "damaged: " in shown.out
    assert "though its pack was committed" in " ".join(shown.out.split())
    found = command("verify", sweep_copy, "--json")
    assert found.code == 1
    assert [(one["what"], one["design"], one["pack"]) for one in json.loads(found.out)["damages"]] == [
        ("ledger", "heldout", 1)
    ]
    ended = command("run", tiny_yaml, "--out", sweep_copy)
    assert ended.code == 0
    assert "damaged, will be trained again: heldout pack 1" in ended.err
    assert command("verify", sweep_copy).code == 0


@pytest.mark.parametrize("variable", ["masks", "seeds", "subsets", "repeats", "margin", "loss"])
@pytest.mark.parametrize("harm", [swap, reverse])
def test_python_refuses_them(harm: Callable[[Path], None], variable: str, sweep_copy: Path) -> None:
    runs = orchestrator.open_sweep(sweep_copy).runs("fit")
    harm(sweep_copy / FIT / (variable if variable in ("masks", "seeds", "subsets") else "outputs/margin"))
    if variable == "repeats":  # those of this design are alike, and no harm is done to them
        assert np.asarray(runs[variable][:2]).tolist() == [0, 0]
        return
    with pytest.raises(StoreError, match="counterfactory verify"):
        np.asarray(runs[variable])


@pytest.mark.parametrize("array", ["outputs/margin", "masks"])
@pytest.mark.parametrize("harm", [swap, reverse])
def test_runs_read_block_by_block_are_checked_and_the_standing_answer_stays(
    harm: Callable[[Path], None],
    array: str,
    sweep_copy: Path,
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence, "IN_MEMORY", 0)
    standing = kept(sweep_copy / "attributions.zarr/difference_in_means")
    harm(sweep_copy / FIT / array)
    ended = command("attribute", sweep_copy, "--again")
    assert ended.code == 2
    assert f"{FIT}/{array}/c." in ended.err.splitlines()[-1]
    assert kept(sweep_copy / "attributions.zarr/difference_in_means") == standing


@pytest.mark.parametrize("harm", [swap, reverse])
def test_a_stopping_criterion_refuses_them(
    harm: Callable[[Path], None], tiny: dict[str, Any], make_sweep: Callable[[dict[str, Any]], Sweep], sweep_copy: Path
) -> None:
    tiny["stop"] = {"fit": {"when": "standard_error < 1e-9", "every": 1}}
    sweep = make_sweep(tiny)
    shutil.copytree(sweep_copy, sweep.paths.root)
    harm(sweep.paths.root / FIT / "outputs/margin")
    with RunStore.open(sweep.paths, write=True) as store, pytest.raises(StoreError, match="counterfactory verify"):
        Stopper(sweep, store).landed("fit")
    assert not sweep.paths.stopping.exists()


def test_a_file_that_changes_after_it_was_found_good_is_checked_again(sweep_copy: Path) -> None:
    with RunStore.open(Sweep.at(sweep_copy).paths) as store:
        for read in (lambda: store.outputs("fit", "margin"), lambda: store.masks("fit")):
            read()
        reverse(sweep_copy / FIT / "outputs/margin")
        with pytest.raises(StoreError, match="margin"):
            store.outputs("fit", "margin")
        swap(sweep_copy / FIT / "masks")
        with pytest.raises(StoreError, match="masks"):
            store.masks("fit")
