"""Runs made elsewhere: every format ends in the same sweep, and what does not fit is refused with the counts."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from orchestrator.store.ledger import DONE
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep

Refused = Callable[..., str]
Command = Callable[..., Any]
Write = Callable[..., list[object]]


def stored(folder: Path) -> tuple[dict[bytes, np.ndarray], RunStore]:
    """Return outputs by mask, over all designs."""
    with RunStore.open(Sweep.at(folder).paths) as store:
        found = {}
        for name in store.designs:
            for mask, outputs in zip(store.masks(name), store.outputs(name, store.measures[0]), strict=True):
                found[mask.tobytes()] = outputs
    return found, store


def test_every_format_becomes_the_same_sweep(command: Command, source: list[object], made: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    ended = command("import", *source, "--out", folder, "--holdout", 0.25, "--json")
    assert ended.code == 0, ended.err
    fit, score = json.loads(ended.out)["designs"]
    assert (fit["runs"], score["runs"], fit["not_finite"]) == (30, 10, 0)
    found, store = stored(folder)
    assert (store.n, store.t) == (12, 3)
    assert {mask: outputs.tolist() for mask, outputs in found.items()} == {
        mask.tobytes(): outputs.tolist() for mask, outputs in zip(made.masks, made.outputs, strict=True)
    }
    assert (store.states("fit") == DONE).all()
    assert not store.seeds("score").any()


def test_all_that_needs_no_training_works(command: Command, write: Write, made: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    assert command("import", *write("memmaps", made), "--out", folder, "estimators.random={}").code == 0
    assert command("attribute", folder).code == 0
    scored = command("score", folder, "--json")
    values = {row["estimator"]: row["value"] for row in json.loads(scored.out) if row["metric"] == "lds"}
    assert values["datamodel"] > 0.8, scored.err
    for arguments in (["report"], ["status"], ["verify"], ["export", "--to", tmp_path / "all.npz"]):
        ended = command(arguments[0], folder, *arguments[1:])
        assert ended.code == 0, ended
    assert command("export", folder, "--to", tmp_path / "runs.parquet").code == 0
    assert len(pd.read_parquet(tmp_path / "runs.parquet")) == 40
    moved = folder.rename(tmp_path / "elsewhere")
    assert command("status", moved).code == 0


def test_nothing_of_it_can_be_trained(
    command: Command, refused: Refused, write: Write, made: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    command("import", *write("pair", made), "--out", folder)
    for arguments in (["retrain", folder], ["verify", folder, "--rerun", 1]):
        assert "imported runs cannot be trained" in refused(*arguments)


MISTAKEN = (
    ("estimators.random", "override 'estimators.random': expected key.sub=value"),
    ("seed=1", "override 'seed': of an imported sweep only estimators, scores, ray, name can be set"),
    ("task.name=digits", "override 'task.name': of an imported sweep only estimators, scores, ray, name can be set"),
    ("estimators.datamodel.folds=x", "override 'estimators.datamodel.folds': estimators.datamodel.folds: "),
    ("estimators.datamodl={}", "override 'estimators.datamodl': estimators.datamodl: unknown estimator 'datamodl'"),
    ("scores.bootstraps=3", "override 'scores.bootstraps': unknown key 'scores.bootstraps'"),
)


@pytest.mark.parametrize(("override", "said"), MISTAKEN)
def test_an_override_s_mistake_is_blamed_on_it(
    refused: Refused, write: Write, made: Any, tmp_path: Path, override: str, said: str
) -> None:
    line = refused("import", *write("pair", made), "--out", tmp_path / "sweep", override)
    assert said in line
    assert "import:" not in line
    assert not (tmp_path / "sweep").exists()


def test_an_own_estimator_is_found_wherever_the_sweep_is_looked_at_from(
    command: Command, write: Write, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from estimators.baselines.random import Random\n\n\nclass Mine(Random):\n    pass\n"
    )
    own = ["estimators.mine.estimator=mine.py:Mine"]
    assert command("import", *write("pair", made), "--out", tmp_path / "sweep", *own).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ended = command("attribute", tmp_path / "sweep")
    assert ended.code == 0, ended.err


def test_given_scoring_runs_are_taken(
    command: Command, refused: Refused, write: Write, made: Any, tmp_path: Path
) -> None:
    first, last = (
        replace(made, masks=made.masks[:28], outputs=made.outputs[:28]),
        replace(made, masks=made.masks[28:], outputs=made.outputs[28:]),
    )
    fit, score = write("memmaps", first, "a"), write("memmaps", last, "b")
    ended = command("import", *fit, "--score", score[1], "--out", tmp_path / "sweep", "--json")
    assert [one["runs"] for one in json.loads(ended.out)["designs"]] == [28, 12]
    both = [*fit, "--score", score[1], "--holdout", 0.2, "--out", tmp_path / "other"]
    assert "--holdout goes without --score" in refused("import", *both)
    assert not (tmp_path / "other").exists()


def test_a_mask_in_fitting_and_scoring_runs_is_refused(
    refused: Refused, write: Write, made: Any, tmp_path: Path
) -> None:
    fit = write("memmaps", replace(made, masks=made.masks[:30], outputs=made.outputs[:30]), "a")
    score = write("memmaps", replace(made, masks=made.masks[27:], outputs=made.outputs[27:]), "b")
    line = refused("import", *fit, "--score", score[1], "--out", tmp_path / "sweep")
    assert "3 of the 13 scoring subsets are also among the 30 fitting ones (scoring run 0 is fitting run 27)" in line


def test_the_same_outputs_are_not_taken_for_both(refused: Refused, write: Write, made: Any, tmp_path: Path) -> None:
    fit = write("pair", made)
    np.save(tmp_path / "source" / "test_masks.npy", ~made.masks)
    line = refused("import", *fit, "--score", tmp_path / "source" / "test_masks.npy", "--out", tmp_path / "sweep")
    assert "--score-outputs" in line


def test_rows_that_were_never_finished_are_left_out(command: Command, write: Write, made: Any, tmp_path: Path) -> None:
    source = write("memmaps", made)
    finished = np.arange(40) % 10 != 3
    np.save(tmp_path / "source" / "_completed.npy", finished.astype(np.uint8))
    made.masks[~finished] = False
    np.save(tmp_path / "source" / "masks.npy", made.masks)
    ended = command("import", *source, "--out", tmp_path / "sweep", "--holdout", 0, "--json")
    (fit,) = json.loads(ended.out)["designs"]
    assert (fit["runs"], fit["left_out"]) == (36, "4 of 40 rows are not completed")
    assert len(stored(tmp_path / "sweep")[0]) == 36


def test_outputs_that_are_not_finite_are_failed_runs(command: Command, write: Write, made: Any, tmp_path: Path) -> None:
    made.outputs[[3, 5]] = np.nan
    made.outputs[9, 1] = np.inf
    ended = command("import", *write("tensors", made), "--out", tmp_path / "sweep", "--holdout", 0, "--json")
    assert json.loads(ended.out)["designs"][0]["not_finite"] == 3
    status = json.loads(command("status", tmp_path / "sweep", "--json").out)
    assert (status["done"], status["failed"], status["pending"]) == (37, 3, 0)
    assert status["failures"] == ["fit: NotFinite: the imported outputs of this run are not all finite (3 times)"]
    assert command("attribute", tmp_path / "sweep").code == 0


@pytest.mark.parametrize("format", ["tensors", "dattri"])
def test_repeats_are_seeds_of_one_subset(
    command: Command, write: Write, made: Any, tmp_path: Path, format: str
) -> None:
    repeated = np.stack([made.outputs, made.outputs + 1, made.outputs + 2], axis=1)
    source = write(format, made)
    if format == "tensors":
        torch.save(torch.from_numpy(repeated).bfloat16(), tmp_path / "source" / "margins.pt")
        repeated = torch.from_numpy(repeated).bfloat16().float().numpy()
    else:
        np.save(tmp_path / "source" / "losses.npy", repeated)
    ended = command("import", *source, "--out", tmp_path / "sweep", "--holdout", 0.2, "--json")
    fit, score = json.loads(ended.out)["designs"]
    assert (fit["subsets"], fit["runs"], score["subsets"], score["runs"]) == (32, 96, 8, 24)
    store = stored(tmp_path / "sweep")[1]
    assert np.bincount(store.subsets("fit")).tolist() == [3] * 32
    assert store.repeats("score").tolist() == [0, 1, 2] * 8
    masks = {mask.tobytes(): row for row, mask in enumerate(made.masks)}
    of = [masks[mask.tobytes()] for mask in store.masks("score")]
    assert np.array_equal(store.outputs("score", "margin"), repeated[of, store.repeats("score")])


def test_equal_masks_are_one_subset(command: Command, write: Write, made: Any, tmp_path: Path) -> None:
    made.masks[20:] = made.masks[:20]
    ended = command("import", *write("pair", made), "--out", tmp_path / "sweep", "--holdout", 0.25, "--json")
    assert [(one["subsets"], one["runs"]) for one in json.loads(ended.out)["designs"]] == [(15, 30), (5, 10)]


def test_the_split_is_seeded(command: Command, write: Write, made: Any, tmp_path: Path) -> None:
    source, chosen = write("pair", made), []
    for place, seed in enumerate([0, 0, 1]):
        command("import", *source, "--out", tmp_path / str(place), "--seed", seed)
        chosen.append(stored(tmp_path / str(place))[1].masks("score"))
    assert np.array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])


def test_wide_tables_and_arrays_go_with_pairs(command: Command, write: Write, made: Any, tmp_path: Path) -> None:
    write("pairs", made)
    folder = tmp_path / "source"
    run, example = np.nonzero(made.masks)
    pd.DataFrame({"run": run, "example": example}).to_parquet(folder / "pairs.parquet")
    wide = pd.DataFrame(made.outputs, columns=[f"q{q}" for q in range(3)])
    wide.insert(1, "run", np.arange(40))
    wide.iloc[::-1].to_parquet(folder / "wide.parquet")
    np.save(folder / "rows.npy", made.outputs)
    for name in ("wide.parquet", "rows.npy"):
        arguments = ["--fit", folder / "pairs.parquet", "--outputs", name, "--n", 12]
        assert command("import", *arguments, "--out", tmp_path / name).code == 0
    found = [stored(tmp_path / name)[0] for name in ("wide.parquet", "rows.npy")]
    assert all(np.array_equal(found[0][key], found[1][key]) for key in found[1])
    assert np.array_equal(found[0][made.masks[4].tobytes()], made.outputs[4])


def test_a_folder_that_is_used_is_refused(
    command: Command, refused: Refused, write: Write, made: Any, tmp_path: Path
) -> None:
    source = write("pair", made)
    command("import", *source, "--out", tmp_path / "sweep")
    assert "exists already" in refused("import", *source, "--out", tmp_path / "sweep")


def test_only_what_comes_after_can_be_set(refused: Refused, write: Write, made: Any, tmp_path: Path) -> None:
    source = write("pair", made)
    assert "only estimators, scores" in refused("import", *source, "--out", tmp_path / "sweep", "task.name=digits")
    assert "fold" in refused("import", *source, "--out", tmp_path / "sweep", "estimators.datamodel.fold=3")
    assert not (tmp_path / "sweep").exists()


def test_an_interrupted_import_leaves_nothing(
    write: Write, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    source = write("pair", made)
    monkeypatch.setattr(RunStore, "commit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert command("import", *source, "--out", tmp_path / "sweep").code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("format", "name", "value", "expected"),
    [
        ("pair", "outputs.npy", np.zeros((39, 3)), "masks have 40 rows and outputs 39"),
        ("pair", "outputs.npy", np.zeros(40), r"outputs have shape (40,), expected (runs, queries)"),
        ("pair", "outputs.npy", np.array(["a"] * 40).reshape(40, 1), "expected real numbers"),
        ("pair", "outputs.npy", np.full((40, 3), np.nan), "0 subsets with finite outputs to fit on"),
        ("pair", "masks.npy", np.full((40, 12), 2), "neither 0 nor 1, such as"),
        ("pair", "masks.npy", np.zeros((40, 12)), "40 of its 40 runs have an empty subset"),
        ("pair", "masks.npy", np.ones(12), "masks have shape (12,)"),
        ("pair", "other.npy", np.zeros((40, 3)), "cannot tell which file holds the outputs (other.npy, outputs.npy)"),
        ("memmaps", "_completed.npy", np.ones(39), "masks have 40 rows and _completed 39"),
        ("memmaps", "_completed.npy", np.zeros(40), "none of its 40 rows is completed"),
        ("memmaps", "train_masks.npy", np.zeros(40), "expected one file of masks, found masks.npy, train_masks.npy"),
        ("dattri", "losses.npy", np.zeros((41, 3)), "masks have 40 rows and outputs 41"),
        ("dattri", "3/indices.txt", "1\n2\n2\n", "names 1 examples twice"),
        ("dattri", "3/indices.txt", "1\n12\n", "1 of 236 examples are not in 0..11, such as 12"),
        ("dattri", "3/indices.txt", "one", "expected one index a line"),
        ("dattri", "metadata.yml", "mode: lds\n", "give --n"),
        ("tensors", "margins.pt", {"a": 1}, "holds a dict with the keys 'a', expected one tensor"),
        ("tensors", "margins.pt", "junk", "cannot be read"),
        ("pairs", "pairs.parquet", {"run": [7, 7], "example": [1, 1]}, "1 of its 2 pairs are there twice"),
        ("pairs", "pairs.parquet", {"run": [7], "sample": [1]}, "expected rows with the columns example, run"),
        ("pairs", "pairs.parquet", {"run": [7, 99], "example": [1, 1]}, "1 of its 2 runs have no outputs, and 39 of the 40"),
        ("pairs", "pairs.parquet", {"run": [7, 8], "example": [1, 40]}, "1 of 2 examples are not in 0..11"),
        ("pairs", "outputs.parquet", {"run": [7, 7], "q": [0.0, 1.0]}, "1 of its 2 rows name a run a second time"),
        ("pairs", "outputs.parquet", {"run": [7, 7], "query": [0, 0], "value": [0.0, 1.0]}, "(run, query) a second time"),
        ("pairs", "outputs.parquet", {"run": [7, 7], "query": [0, 5], "value": [0.0, 1.0]}, "2 queries from 0 to 5"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    refused: Refused, write: Write, made: Any, tmp_path: Path, format: str, name: str, value: Any, expected: str
) -> None:
    source = write(format, made)
    path = tmp_path / "source" / name
    if path.suffix == ".npy":
        np.save(path, value)
    elif path.suffix == ".parquet":
        pd.DataFrame(value).to_parquet(path)
    elif isinstance(value, str):
        path.write_text(value)
    else:
        torch.save(value, path)
    line = refused("import", *source, "--out", tmp_path / "sweep")
    assert expected in line
    assert not (tmp_path / "sweep").exists()


def test_what_is_not_there_is_said(refused: Refused, write: Write, made: Any, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "sweep"]
    assert "no such file or folder" in refused("import", "--fit", tmp_path / "none", *out)
    (tmp_path / "empty").mkdir()
    assert "none of the formats" in refused("import", "--fit", tmp_path / "empty", *out)
    source = write("memmaps", made)
    assert "found no outputs 'logits'" in refused("import", *source[:2], "--outputs", "logits", *out)
    assert "cannot tell which file" in refused("import", *source[:2], *out)
    assert "--n 13" in refused("import", *source, "--n", 13, *out)
    pairs = write("pairs", made, "pairs")
    assert "give --n" in refused("import", *pairs[:4], *out)
    dattri = write("dattri", made, "dattri")
    assert "data_length 12" in refused("import", *dattri, "--n", 13, *out)
    for wrong in ("many", 0, 12.0, "true"):
        (Path(str(dattri[1])) / "metadata.yml").write_text(f"data_length: {wrong}\n")
        assert "data_length: expected the number of training examples" in refused("import", *dattri, *out)


def test_other_examples_or_queries_are_refused(refused: Refused, write: Write, made: Any, tmp_path: Path) -> None:
    fit = write("pair", made, "a")
    score = write("pair", replace(made, outputs=made.outputs[:, :2]), "b")
    line = refused("import", *fit, "--score", score[1], "--out", tmp_path / "sweep")
    assert "has 12 examples and 3 queries" in line
    assert "has 12 and 2" in line
