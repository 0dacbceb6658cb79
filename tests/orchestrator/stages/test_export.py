"""What is exported is what others read, and what `import` reads back: the same runs, seeds and all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from scipy.stats import spearmanr

from orchestrator.stages.export import FORMATS
from orchestrator.store.attributions import list_attributions, read_attribution
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore

Command = Callable[..., Any]
Refused = Callable[..., str]
Runs = list[tuple[bytes, int, int, list[float]]]
FOLDERS = [name for name, one in FORMATS.items() if one.is_folder]
ARRAYS = [name for name in FOLDERS if name != "dattri"]


def runs_of(folder: Path, design: str, measure: str, *, seeds: bool = True) -> Runs:
    """Return mask, seed, repeat and outputs of every run, sorted."""
    with RunStore.open(SweepPaths(folder)) as store:
        rows = zip(
            store.masks(design), store.seeds(design), store.repeats(design), store.outputs(design, measure), strict=True
        )
        return sorted((mask.tobytes(), int(seed) * seeds, int(k), values.tolist()) for mask, seed, k, values in rows)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(("design", "measure"), [("heldout", "margin"), ("left_out", "loss")])
def test_import_reads_back_the_same_runs(
    command: Command, finished_sweep: Path, tmp_path: Path, name: str, design: str, measure: str
) -> None:
    ended = command("export", finished_sweep, "--to", tmp_path / "out", "--format", name)
    assert ended.code == 0, ended.err
    source = ("--fit", tmp_path / "out" / design, "--outputs", measure, "--measure", measure)
    ended = command("import", *source, "--holdout", 0, "--out", tmp_path / "again")
    assert ended.code == 0, ended.err
    assert runs_of(tmp_path / "again", "fit", measure) == runs_of(finished_sweep, design, measure)


def test_import_reads_back_what_dattri_reads(command: Command, finished_sweep: Path, tmp_path: Path) -> None:
    shown = command("export", finished_sweep, "--to", tmp_path / "out", "--format", "dattri", "--measure", "loss").out
    assert "target_values_lds.pt is minus the loss of design 'heldout', as dattri keeps it" in shown
    assert "target_values_loo.pt is the loss of design 'left_out' itself" in shown
    command("import", "--fit", tmp_path / "out", "--n", 60, "--holdout", 0, "--out", tmp_path / "again")
    for there, here in (("fit", "heldout"), ("leave_one_out", "left_out")):
        found, expected = runs_of(tmp_path / "again", there, "loss"), runs_of(finished_sweep, here, "loss", seeds=False)
        assert found == expected


def test_dattri_s_own_arithmetic_gives_our_score(command: Command, finished_sweep: Path, tmp_path: Path) -> None:
    """The scores and the truth as dattri's `metric.lds` takes them: scores of the kept examples are summed, and ranked."""
    asked = ("--format", "dattri", "--measure", "margin", "--mean-of-seeds")
    shown = command("export", finished_sweep, "--to", tmp_path / "out", *asked).out
    assert "scores are (example, query), minus the attributions" in shown
    indices, values = (torch.load(tmp_path / "out" / "lds" / f"{of}_lds.pt") for of in ("indices", "target_values"))
    assert (indices.shape, values.shape) == ((6, 30), (6, 8))
    table = pd.read_parquet(finished_sweep / "scores.parquet").query("metric == 'lds' and measure == 'margin'")
    assert len(table) == 3
    for row in table.itertuples():
        score = torch.load(tmp_path / "out" / "scores" / f"{row.estimator}.pt")
        assert score.shape == (60, 8)
        sums = torch.stack([score[kept].sum(dim=0) for kept in indices])
        ranks = [spearmanr(sums[:, q], values[:, q]).correlation for q in range(8)]
        assert np.mean(ranks) == pytest.approx(row.value, abs=1e-6)
    left_out = torch.load(tmp_path / "out" / "loo" / "indices_loo.pt")
    assert sorted(left_out.tolist()) == sorted(set(left_out.tolist()))
    assert torch.load(tmp_path / "out" / "loo" / "target_values_loo.pt").shape == (4, 8)


def test_kronfluence_s_own_arithmetic_gives_our_score(command: Command, finished_sweep: Path, tmp_path: Path) -> None:
    """The files as kronfluence's `evaluate_lds.py` takes them: pickled NumPy arrays, and `-masks @ scores.T`."""
    asked = ("--format", "kronfluence", "--design", "heldout", "--measure", "margin", "--mean-of-seeds")
    assert "kronfluence's are of leaving out" in command("export", finished_sweep, "--to", tmp_path / "out", *asked).out
    masks, margins = (
        torch.from_numpy(torch.load(tmp_path / "out" / "heldout" / name, weights_only=False))  # as it does
        for name in ("masks.pt", "margin.pt")
    )
    assert (masks.dtype, margins.dtype) == (torch.int8, torch.float32)
    table = pd.read_parquet(finished_sweep / "scores.parquet").query("metric == 'lds' and measure == 'margin'")
    for row in table.itertuples():
        place = tmp_path / "out" / "scores" / str(row.estimator)
        scores = torch.from_numpy(load_file(place / "pairwise_scores.safetensors")["all_modules"])
        assert scores.shape == (8, 60)
        predicted = -masks.float() @ scores.T
        ranks = [spearmanr(predicted[:, q], margins[:, q]).correlation for q in range(8)]
        assert np.mean(ranks) == pytest.approx(row.value, abs=1e-6)


def test_packed_masks_are_plain_bytes(command: Command, finished_sweep: Path, tmp_path: Path) -> None:
    command("export", finished_sweep, "--to", tmp_path / "out", "--format", "npy-packed")
    packed = np.load(tmp_path / "out" / "fit" / "packed_masks.npy")
    about = json.loads((tmp_path / "out" / "fit" / "packed_masks.json").read_text())
    assert (packed.dtype, packed.shape, about) == (np.uint8, (20, 8), {"n": 60, "bitorder": "big"})
    masks = [[bool(row[i // 8] >> (7 - i % 8) & 1) for i in range(60)] for row in packed.tolist()]
    with RunStore.open(SweepPaths(finished_sweep)) as store:
        assert masks == store.masks("fit").tolist()


@pytest.mark.parametrize("name", ["npy", "pt"])
def test_attributions_are_as_we_have_them(command: Command, finished_sweep: Path, tmp_path: Path, name: str) -> None:
    command("export", finished_sweep, "--to", tmp_path / "out", "--format", name)
    for label in list_attributions(SweepPaths(finished_sweep)):
        path = tmp_path / "out" / "attributions" / f"{label}.{name}"
        found = np.load(path) if name == "npy" else torch.load(path).numpy()
        assert np.array_equal(found, read_attribution(SweepPaths(finished_sweep), label).values)


def test_the_mean_of_seeds_is_a_row_a_subset(command: Command, sweep_copy: Path, tmp_path: Path) -> None:
    with RunStore.open(SweepPaths(sweep_copy), write=True) as store:
        store.forget("heldout", [3])  # one subset has one seed left
    shown = command("export", sweep_copy, "--to", tmp_path / "out", "--format", "npy", "--mean-of-seeds").out
    assert "heldout: 1 runs are not finished and left out" in shown
    assert not (tmp_path / "out" / "heldout" / "_seeds.npy").exists()
    masks, values = (np.load(tmp_path / "out" / "heldout" / f"{name}.npy") for name in ("masks", "loss"))
    with RunStore.open(SweepPaths(sweep_copy)) as store:
        subsets, outputs, all_masks = store.subsets("heldout"), store.outputs("heldout", "loss"), store.masks("heldout")
    for subset in range(6):
        assert np.allclose(values[subset], np.nanmean(outputs[subsets == subset], axis=0), rtol=1e-6)
        assert np.array_equal(masks[subset], all_masks[subsets == subset][0])


def test_runs_that_are_not_finished_are_left_out_and_said(command: Command, sweep_copy: Path, tmp_path: Path) -> None:
    with RunStore.open(SweepPaths(sweep_copy), write=True) as store:
        store.forget("fit", [2, 3])
        kept = np.delete(store.masks("fit"), [2, 3], axis=0)
    shown = command("export", sweep_copy, "--to", tmp_path / "out", "--format", "npy").out
    assert "fit: 2 of 20 runs are not finished and left out" in shown
    assert np.array_equal(np.load(tmp_path / "out" / "fit" / "masks.npy"), kept)
    assert np.isfinite(np.load(tmp_path / "out" / "fit" / "margin.npy")).all()


def test_what_does_not_fit_is_refused(refused: Refused, finished_sweep: Path, tmp_path: Path) -> None:
    out = ("export", finished_sweep, "--to", tmp_path / "out")
    assert "or a --format for a folder: npy, npy-indices" in refused(*out)
    assert "no format 'npi'" in refused(*out, "--format", "npi")
    assert "no design 'held'" in refused(*out, "--format", "npy", "--design", "held")
    assert "no measure 'margins'" in refused(*out, "--format", "pt", "--measure", "margins")
    assert "expected a name that ends in .npz" in refused(*out, "--format", "npz")
    npz = ("export", finished_sweep, "--to", tmp_path / "out.npz")
    assert "go with folders" in refused(*npz, "--mean-of-seeds")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    assert "exists already" in refused(*out[:3], tmp_path / "used", "--format", "npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["used"]


@pytest.mark.parametrize("name", ["npy-indices", "dattri"])
def test_subsets_of_several_sizes_are_no_rectangle(
    refused: Refused, command: Command, tmp_path: Path, name: str
) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "masks.npy", rng.random((30, 10)) < 0.5)
    np.save(tmp_path / "margins.npy", rng.normal(size=(30, 2)))
    assert command("import", "--fit", tmp_path / "masks.npy", "--holdout", 0, "--out", tmp_path / "sweep").code == 0
    asked = ("export", tmp_path / "sweep", "--to", tmp_path / "out", "--format", name)
    if name == "dattri":
        assert "none is for scoring: name one with --design" in refused(*asked)
    assert "kept indices are one rectangle" in refused(*asked, "--design", "fit")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*")), "nothing half-made is left"


def test_help_says_what_each_format_is(command: Command) -> None:
    shown = command("export", "--help").out
    for name, one in FORMATS.items():
        assert (name if one.is_folder else f".{name}:") in shown
