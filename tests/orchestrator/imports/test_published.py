"""Ground truths as others publish them: each becomes the sweep it speaks of, with its signs, seeds and orientation said."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from orchestrator.imports import torch_files
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import DataError

Refused = Callable[..., str]
Command = Callable[..., Any]
DATA = Path(os.environ.get("COUNTERFACTORY_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
RTE = DATA / "kronfluence_rte"


def runs_of(folder: Path) -> tuple[dict[str, dict[tuple[bytes, int], list[float]]], RunStore]:
    """Return the outputs of every run by design, mask and repeat."""
    with RunStore.open(Sweep.at(folder).paths) as store:
        found = {
            name: {
                (mask.tobytes(), int(repeat)): values.tolist()
                for mask, repeat, values in zip(
                    store.masks(name), store.repeats(name), store.outputs(name, store.measures[0]), strict=True
                )
            }
            for name in store.designs
        }
    return found, store


def expected(masks: np.ndarray, outputs: np.ndarray) -> dict[tuple[bytes, int], list[float]]:
    """The same of arrays: masks (s, n), outputs (s, seeds, t)."""
    return {
        (mask.tobytes(), repeat): values.tolist()
        for mask, repeats in zip(masks, outputs, strict=True)
        for repeat, values in enumerate(repeats)
    }


def write_dattri(folder: Path, made: Any, *, nested: bool = False) -> None:
    lds, loo = (folder / "lds", folder / "loo") if nested else (folder, folder)
    for place in (lds, loo):
        place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    kept = torch.tensor(np.stack([rng.permutation(np.flatnonzero(mask)) for mask in made.masks]))
    torch.save(kept, lds / "indices_lds.pt")
    torch.save(-torch.from_numpy(made.outputs), lds / "target_values_lds.pt")
    torch.save(torch.arange(12.0), loo / "indices_loo.pt")  # dattri keeps them as floats
    torch.save(torch.arange(36.0).reshape(12, 3), loo / "target_values_loo.pt")


@pytest.mark.parametrize("nested", [False, True])
def test_dattri_keeps_minus_the_target(command: Command, made: Any, tmp_path: Path, nested: bool) -> None:
    write_dattri(tmp_path / "mnist_lr", made, nested=nested)
    asked = ["import", "--fit", tmp_path / "mnist_lr", "--n", 12, "--holdout", 0]
    shown = " ".join(command(*asked, "--out", tmp_path / "sweep").out.split())
    assert "fit: outputs are minus those of target_values_lds.pt, which keeps them negated" in shown
    assert "leave_one_out: indices_loo.pt names the example left out: kept are the others" in shown
    found, store = runs_of(tmp_path / "sweep")
    assert store.measures == ("loss",)
    assert found["fit"] == expected(made.masks, made.outputs[:, None])
    left_out = np.arange(36.0).reshape(12, 1, 3)
    assert found["leave_one_out"] == expected(~np.eye(12, dtype=bool), left_out)
    assert "negated" in store.attributes["fit_done"]
    command(*asked, "--keep-signs", "--measure", "minus_loss", "--out", tmp_path / "as_it_is")
    found, store = runs_of(tmp_path / "as_it_is")
    assert found["fit"] == expected(made.masks, -made.outputs[:, None])
    assert (store.measures, store.attributes["fit_done"]) == (("minus_loss",), "")


def test_leave_one_out_truth_judges_without_a_full_run(command: Command, made: Any, tmp_path: Path) -> None:
    write_dattri(tmp_path / "mnist_lr", made)
    effects = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
    torch.save(torch.from_numpy(5 - effects), tmp_path / "mnist_lr" / "target_values_loo.pt")
    command("import", "--fit", tmp_path / "mnist_lr", "--n", 12, "--out", tmp_path / "sweep")
    np.save(tmp_path / "right.npy", effects)
    judged = command(
        "score", tmp_path / "sweep", "--attributions", tmp_path / "right.npy", "--measure", "loss", "--json"
    )
    (row,) = [row for row in json.loads(judged.out) if row["metric"] == "loo_correlation"]
    assert row["value"] == pytest.approx(1), judged.err


def write_bergson(folder: Path, made: Any, outputs: np.ndarray, baseline: np.ndarray) -> None:
    (folder / "query_loss_cache").mkdir(parents=True)
    left_out = [np.flatnonzero(~mask).tolist() for mask in made.masks]
    (folder / "subsets.json").write_text(json.dumps(left_out))
    losses = {"baseline": 0.0, "baseline_per_doc": torch.from_numpy(baseline), "per_subset": torch.from_numpy(outputs)}
    torch.save(losses, folder / "query_loss_cache" / "losses_0123456789abcdef.pt")
    config = {"steps": [{"validate": {"subset_weight": 0.0, "seed": 1}}], "metadata": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_bergson_lists_what_was_left_out(command: Command, made: Any, tmp_path: Path) -> None:
    baseline = np.array([1.0, 2.0, 3.0], np.float32)
    write_bergson(tmp_path / "bank", made, made.outputs, baseline)
    shown = command("import", "--fit", tmp_path / "bank", "--n", 12, "--holdout", 0, "--out", tmp_path / "sweep").out
    assert "subsets.json lists what was left out: kept are the others" in " ".join(shown.split())
    found, store = runs_of(tmp_path / "sweep")
    assert store.measures == ("loss",)
    assert found["fit"] == expected(made.masks, made.outputs[:, None])
    assert found["full"] == {(np.ones(12, bool).tobytes(), 0): [1.0, 2.0, 3.0]}


def test_banks_of_equal_subsets_are_repeats(command: Command, refused: Refused, made: Any, tmp_path: Path) -> None:
    second = made.outputs + 1
    write_bergson(tmp_path / "banks" / "seed_0", made, made.outputs, np.ones(3, np.float32))
    write_bergson(tmp_path / "banks" / "seed_1", made, second, np.zeros(3, np.float32))
    asked = ("import", "--fit", tmp_path / "banks", "--n", 12, "--holdout", 0, "--out", tmp_path / "sweep")
    assert command(*asked).code == 0
    found, store = runs_of(tmp_path / "sweep")
    assert found["fit"] == expected(made.masks, np.stack([made.outputs, second], axis=1))
    assert list(store.designs) == ["fit"], "a baseline of zeros was never measured"
    other = tmp_path / "banks" / "seed_1" / "subsets.json"
    other.write_text(json.dumps(json.loads(other.read_text())[::-1]))
    assert "lists other subsets than" in refused(*asked[:-1], tmp_path / "other")


def test_one_query_of_bergson_is_one_column(command: Command, made: Any, tmp_path: Path) -> None:
    write_bergson(tmp_path / "bank", made, made.outputs[:, 0], np.zeros(0, np.float32))
    path = tmp_path / "bank" / "query_loss_cache" / "losses_0123456789abcdef.pt"
    torch.save({"baseline": 2.5, "per_subset": torch.from_numpy(made.outputs[:, 0].copy())}, path)
    command("import", "--fit", tmp_path / "bank", "--n", 12, "--holdout", 0, "--out", tmp_path / "sweep")
    found, _ = runs_of(tmp_path / "sweep")
    assert found["fit"] == expected(made.masks, made.outputs[:, None, :1])
    assert list(found["full"].values()) == [[2.5]]


@pytest.mark.parametrize("style", [None, True], ids=["blocks", "flow"])
def test_quanda_lists_what_was_kept(command: Command, made: Any, tmp_path: Path, style: bool | None) -> None:
    kept = [np.flatnonzero(mask).tolist() for mask in made.masks]
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "lds_subsets.yaml").write_text(yaml.safe_dump(kept, default_flow_style=style))
    np.save(tmp_path / "meta" / "outputs.npy", made.outputs)
    for place, source in enumerate((tmp_path / "meta", tmp_path / "meta" / "lds_subsets.yaml")):
        out = tmp_path / str(place)
        assert command("import", "--fit", source, "--n", 12, "--holdout", 0, "--out", out).code == 0
        assert runs_of(out)[0]["fit"] == expected(made.masks, made.outputs[:, None])


def write_diffusion(folder: Path, made: Any) -> dict[tuple[int, int], np.ndarray]:
    """Write subsets of a training set that is every third example of a data set; 40 subsets with two seeds, one with none."""
    (folder / "retrain").mkdir(parents=True)
    examples = 3 * np.arange(12) + 1
    np.savetxt(folder / "idx_train.csv", examples, fmt="%d")
    outputs = {}
    for k, mask in enumerate(made.masks):
        np.savetxt(folder / "retrain" / f"sub_idx_{k}.csv", examples[mask], fmt="%d")
        for seed in (0, 17):
            if k != 5:
                outputs[k, seed] = made.outputs[k] + seed
                place = folder / "measures" / f"subidx{k}-{seed}"
                place.mkdir(parents=True)
                np.save(place / "measurements.npy", outputs[k, seed])
    return outputs


def test_kept_seeds_are_repeats_with_their_seeds(command: Command, made: Any, tmp_path: Path) -> None:
    outputs = write_diffusion(tmp_path / "cifar2", made)
    asked = ("--fit", tmp_path / "cifar2", "--outputs", "measures", "--holdout", 0)
    ended = command("import", *asked, "--out", tmp_path / "sweep", "--json")
    (fit,) = json.loads(ended.out)["designs"]
    assert (fit["subsets"], fit["runs"], fit["left_out"]) == (39, 78, "1 of 40 subsets were not measured")
    with RunStore.open(Sweep.at(tmp_path / "sweep").paths) as store:
        assert store.measures == ("loss",)
        seen = zip(
            store.masks("fit"), store.seeds("fit"), store.repeats("fit"), store.outputs("fit", "loss"), strict=True
        )
        rows = {mask.tobytes(): k for k, mask in enumerate(made.masks)}
        for mask, seed, repeat, values in seen:
            assert repeat == {0: 0, 17: 1}[int(seed)]
            assert values.tolist() == outputs[rows[mask.tobytes()], int(seed)].tolist()


def test_seeds_beside_masks_are_kept(command: Command, refused: Refused, write: Any, made: Any, tmp_path: Path) -> None:
    source = write("tensors", made)
    repeated = np.stack([made.outputs, made.outputs + 1], axis=1)
    torch.save(torch.from_numpy(repeated), tmp_path / "source" / "margins.pt")
    seeds = np.arange(80).reshape(40, 2) * 1000
    torch.save(torch.from_numpy(seeds), tmp_path / "source" / "_seeds.pt")
    command("import", *source, "--holdout", 0, "--out", tmp_path / "sweep")
    store = runs_of(tmp_path / "sweep")[1]
    assert store.seeds("fit").tolist() == seeds.ravel().tolist()
    for wrong, said in (
        (seeds[:39], "expected a seed a run"),
        (seeds - 1, "whole numbers from 0"),
        (seeds / 2, "whole"),
    ):
        torch.save(torch.from_numpy(wrong), tmp_path / "source" / "_seeds.pt")
        assert said in refused("import", *source, "--out", tmp_path / "other")


def test_packed_masks_need_no_codec(command: Command, refused: Refused, made: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "packed_masks.npy", np.packbits(made.masks, axis=1))
    np.save(tmp_path / "outputs.npy", made.outputs)
    asked = ("import", "--fit", tmp_path, "--holdout", 0)
    assert "give --n" in refused(*asked, "--out", tmp_path / "sweep")
    assert "has bits set beyond the last of 9 examples" in refused(*asked, "--n", 9, "--out", tmp_path / "sweep")
    assert "expected uint8 (runs, 3)" in refused(*asked, "--n", 17, "--out", tmp_path / "sweep")
    (tmp_path / "packed_masks.json").write_text('{"n": 12, "bitorder": "big"}')
    assert "says n 12" in refused(*asked, "--n", 13, "--out", tmp_path / "sweep")
    assert command(*asked, "--out", tmp_path / "sweep").code == 0
    assert runs_of(tmp_path / "sweep")[0]["fit"] == expected(made.masks, made.outputs[:, None])
    for text in ('{"n": 12, "bitorder": "little"}', '{"n": "12"}', "[]", "junk"):
        (tmp_path / "packed_masks.json").write_text(text)
        assert "packed_masks.json" in refused(*asked, "--out", tmp_path / "other")


@pytest.mark.skipif(not RTE.is_dir(), reason="the published files are not here")
def test_kronfluence_published_files_are_read(command: Command, tmp_path: Path) -> None:
    assert command("import", "--fit", RTE, "--holdout", 0.5, "--out", tmp_path / "sweep").code == 0
    found, store = runs_of(tmp_path / "sweep")
    assert (store.n, store.t) == (2432, 277)
    # An independent look at the same bytes, by NumPy's own unpickling.
    rebuild = (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct")
    with torch.serialization.safe_globals([rebuild, np.ndarray, np.dtype, np.dtypes.Int8DType, np.dtypes.Float32DType]):
        masks, margins = (torch.load(RTE / name, weights_only=True) for name in ("masks.pt", "margins.pt"))
    assert found["fit"] | found["score"] == expected(masks.astype(bool), margins[:, None])


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, (self.place,)

    def __init__(self, place: Path):
        self.place = str(place)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: np.array([evil, evil], dtype=object)])
def test_a_malicious_file_runs_nothing(
    refused: Refused, write: Any, made: Any, tmp_path: Path, wrap: Any, zipped: bool
) -> None:
    source, ran = write("tensors", made), tmp_path / "ran"
    path = tmp_path / "source" / "margins.pt"
    torch.save(wrap(Evil(ran)), path, _use_new_zipfile_serialization=zipped)
    line = refused("import", *source, "--out", tmp_path / "sweep")
    assert "nothing was run" in line
    assert "posix.mkdir" in line
    assert not ran.exists()
    path.write_bytes(pickle.dumps(Evil(ran), protocol=2))
    refused("import", *source, "--out", tmp_path / "sweep")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array(["a", "b"]), "expected numbers"),
        (np.zeros(2, dtype=[("a", "f4")]), "expected numbers"),
        (np.zeros(2, dtype="M8[s]"), "expected numbers"),
        ({"\x1b[31mred": np.ones(2)}, r"holds a dict with the keys '\x1b[31mred'"),
        ([torch.ones(2)], "holds a list, expected one tensor"),
        (hashlib.sha256, "it asks for"),
    ],
)
def test_what_is_no_array_is_said_in_one_plain_line(tmp_path: Path, value: Any, expected: str) -> None:
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"a\.pt: ") as caught:
        torch_files.to_array(torch_files.load(tmp_path / "a.pt"), str(tmp_path / "a.pt"))
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["f2", "<f4", ">f4", "f8", "i1", ">i8", "u4", "b1"])
def test_pickled_arrays_are_read_as_they_were(tmp_path: Path, kind: str) -> None:
    array = np.asfortranarray(np.arange(12).reshape(3, 4).astype(kind))
    for one in (array, np.ascontiguousarray(array), array[:0], np.array(1, kind)):
        for zipped in (True, False):
            torch.save(one, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
            found = torch_files.to_array(torch_files.load(tmp_path / "a.pt"), "a.pt")
            assert found.dtype == one.dtype
            assert found.shape == one.shape
            assert np.array_equal(found, one)


def test_a_cut_off_file_is_refused_at_every_length(tmp_path: Path) -> None:
    torch.save(np.arange(6.0), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.pt"):
            torch_files.load(tmp_path / "cut.pt")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("indices_lds.pt", torch.zeros(40, 6), "names 5 examples twice"),
        ("indices_lds.pt", torch.zeros(40), "expected (subsets, examples kept)"),
        ("indices_lds.pt", torch.full((40, 1), 12), "are not in 0..11, such as 12"),
        ("indices_lds.pt", torch.full((40, 1), 0.5), "expected whole numbers, found 0.5"),
        ("indices_lds.pt", torch.full((40, 1), torch.nan), "expected whole numbers, found nan"),
        ("indices_lds.pt", torch.ones(40, 1, dtype=torch.bool), "expected lists of examples, found bool"),
        ("target_values_lds.pt", torch.zeros(39, 3), "masks have 40 rows and outputs 39"),
        ("target_values_lds.pt", None, "there is no target_values_lds.pt beside it"),
        ("indices_loo.pt", torch.zeros(12, 1), "the example that each left out"),
        ("target_values_loo.pt", torch.zeros(12, 2), "'leave_one_out' are of 12 examples and 2 queries"),
        ("indices_lds.pt", None, "has leave-one-out runs alone"),
    ],
)
def test_damaged_dattri_truth_is_refused(
    refused: Refused, made: Any, tmp_path: Path, name: str, value: Any, expected: str
) -> None:
    write_dattri(tmp_path / "truth", made)
    if value is None:
        (tmp_path / "truth" / name).unlink()
    else:
        torch.save(value, tmp_path / "truth" / name)
    assert expected in refused("import", "--fit", tmp_path / "truth", "--n", 12, "--out", tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("subsets.json", "junk", "cannot be read as JSON"),
        ("subsets.json", "[]", "expected lists of the examples that were left out"),
        ("subsets.json", "[[0, true]]", "expected whole numbers"),
        ("subsets.json", "[[0, 12]]", "such as 12"),
        ("subsets.json", "[[0, 0]]", "names 1 examples twice"),
        ("subsets.json", "[[0]]", "masks have 1 rows and outputs 40"),
        ("config.yaml", "steps: [{validate: {subset_weight: 0.5}}]", "subset_weight is 0.5"),
        ("query_loss_cache/losses_0123456789abcdef.pt", torch.zeros(3), "expected a dict with the keys"),
        ("query_loss_cache/losses_0123456789abcdef.pt", {"per_subset": 3}, "holds a int, expected one tensor"),
        ("query_loss_cache/losses_0123456789abcdef.pt", {"per_subset": torch.zeros(40, 3), "baseline_per_doc": torch.ones(2)},
         "the baseline has shape (2,), expected (3,)"),
        ("query_loss_cache/losses_2.pt", {}, "expected one file losses_*.pt, found losses_0123456789abcdef.pt, losses_2.pt"),
    ],
)  # fmt: skip
def test_damaged_bergson_banks_are_refused(
    refused: Refused, made: Any, tmp_path: Path, name: str, value: Any, expected: str
) -> None:
    write_bergson(tmp_path / "bank", made, made.outputs, np.ones(3, np.float32))
    path = tmp_path / "bank" / name
    if isinstance(value, str):
        path.write_text(value)
    else:
        torch.save(value, path)
    assert expected in refused("import", "--fit", tmp_path / "bank", "--n", 12, "--out", tmp_path / "sweep")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- - 1\n  - 12\n", "such as 12"),
        ("- - 1\n  - 1\n", "names 1 examples twice"),
        ("[[1, 2.5]]", "expected whole numbers"),
        ("{a: 1}", "expected lists of the examples"),
        ("[[1]", "cannot be read"),
        ("- &a [" + ", ".join(map(str, range(12))) + "]\n" + "- *a\n" * 30, "expected lists of the examples"),
        ("- - 1\n", "masks have 1 rows and outputs 40"),
    ],
)
def test_damaged_quanda_subsets_are_refused(
    refused: Refused, made: Any, tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "lds_subsets.yaml").write_text(text)
    np.save(tmp_path / "outputs.npy", made.outputs)
    assert expected in refused("import", "--fit", tmp_path / "lds_subsets.yaml", "--n", 12, "--out", tmp_path / "sweep")


def test_damaged_diffusion_retrainings_are_refused(refused: Refused, made: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cifar2"
    write_diffusion(folder, made)
    asked = ("import", "--fit", folder, "--outputs", "measures", "--out", tmp_path / "sweep")
    assert "name their folder with --outputs" in refused(*asked[:3], *asked[5:])
    assert "--n 13: the masks" in refused(*asked, "--n", 13)
    np.save(folder / "measures" / "subidx7-0" / "measurements.npy", np.zeros(2))
    assert "measurements have the shapes [(2,), (3,)]" in refused(*asked)
    (folder / "measures" / "subidx99-0").mkdir()
    np.save(folder / "measures" / "subidx99-0" / "measurements.npy", np.zeros(3))
    assert "measurements of subset 99, and no sub_idx_99.csv" in refused(*asked)
    (folder / "retrain" / "sub_idx_3.csv").write_text("1\n2\n")
    assert "1 of its 2 examples are not among the 12 there are, such as 2" in refused(*asked)
    (folder / "idx_train.csv").unlink()
    assert "has no idx_train.csv" in refused(*asked)


def test_formats_of_other_measures_are_not_mixed(refused: Refused, write: Any, made: Any, tmp_path: Path) -> None:
    write_dattri(tmp_path / "truth", made)
    fit = write("pair", made)
    line = refused("import", *fit, "--score", tmp_path / "truth", "--n", 12, "--out", tmp_path / "sweep")
    assert "keeps 'margin' by default" in line
    assert "name the outputs of both with --measure" in line
