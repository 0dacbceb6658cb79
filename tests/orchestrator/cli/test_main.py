import json
import os
import re
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from orchestrator.cli import session
from orchestrator.config import yaml_format
from orchestrator.config.loading import load
from orchestrator.config.shipped import description, shipped
from orchestrator.retraining.watch import Watch
from orchestrator.scoring.table import SCORE_COLUMNS
from orchestrator.stages import retrain as retraining
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.store.attributions import list_attributions, read_attribution
from orchestrator.store.ledger import DONE
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, CounterfactoryError, StoreError

Raw = dict[str, Any]
Command = Callable[..., Any]
Refused = Callable[..., str]


def contents(folder: Path) -> dict[str, bytes]:
    """Return everything in a folder but who wrote it last."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "lease"}


def outputs(folder: Path, design: str) -> np.ndarray:
    with RunStore.open(SweepPaths(folder)) as store:
        return np.stack([store.outputs(design, measure) for measure in store.measures])


# The way through


def test_run_does_everything_and_says_where(finished_sweep: Path) -> None:
    with RunStore.open(SweepPaths(finished_sweep)) as store:
        assert {name: (store.states(name) == DONE).all() for name in store.designs} == {
            "reference": True, "fit": True, "heldout": True, "left_out": True,
        }  # fmt: skip
    assert list_attributions(SweepPaths(finished_sweep)) == ["difference_in_means", "random", "tracin"]
    scores = pd.read_parquet(finished_sweep / "scores.parquet")
    assert list(scores.columns) == list(SCORE_COLUMNS)
    assert set(zip(scores.estimator, scores.metric, strict=True)) == {
        (estimator, metric)
        for estimator in ("random", "tracin", "difference_in_means")
        for metric in ("lds", "loo_correlation")
    } | {("difference_in_means", metric) for metric in ("slope", "explained_variance")}
    assert (finished_sweep / "report.html").stat().st_size > 1000
    kept = yaml_format.load((finished_sweep / "config.yaml").read_text())
    assert len(kept["hash"]) == 16


def test_the_same_command_again_trains_and_attributes_nothing(
    command: Command, sweep_copy: Path, tiny_yaml: Path
) -> None:
    before = contents(sweep_copy)
    ended = command("run", tiny_yaml, "--out", sweep_copy)
    assert ended.code == 0
    assert ended.err.count("kept)") == 3
    assert "Leaderboard" in ended.out
    assert str(sweep_copy / "report.html") in ended.out
    after = contents(sweep_copy)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed <= {"report.html", "config.yaml"}, "config.yaml: its folder is where the file is"
    assert after.keys() == before.keys()


def test_one_stage_each_gives_the_same_as_all_at_once(
    command: Command, ray_started: None, finished_sweep: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "staged"
    prepare(Sweep.of(load(str(tiny_yaml)), folder)).close()
    for stage in ("retrain", "attribute", "score", "report"):
        assert command(stage, folder).code == 0
    for design in ("reference", "fit", "heldout", "left_out"):
        assert np.array_equal(outputs(folder, design), outputs(finished_sweep, design))
    for name in list_attributions(SweepPaths(folder)):
        ours, theirs = (read_attribution(SweepPaths(place), name).values for place in (folder, finished_sweep))
        assert np.array_equal(ours, theirs)
    drop = ["train_seconds", "attribute_seconds"]
    pd.testing.assert_frame_equal(
        pd.read_parquet(folder / "scores.parquet").drop(columns=drop),
        pd.read_parquet(finished_sweep / "scores.parquet").drop(columns=drop),
    )


def test_run_json_is_one_document(command: Command, sweep_copy: Path, tiny_yaml: Path) -> None:
    answer = parse(command("run", tiny_yaml, "--out", sweep_copy, "--json").out)
    assert answer["folder"] == str(sweep_copy)
    assert len(answer["scores"]) == 8


def parse(text: str) -> Any:
    """Parse JSON as strictly as other languages do."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_plan_shows_what_would_be_trained_and_writes_nothing(command: Command, tiny_yaml: Path, tmp_path: Path) -> None:
    shown = command("plan", tiny_yaml, "--out", tmp_path / "sweep")
    assert shown.code == 0
    for expected in ("n = 60, t = 8", "fit", "heldout", "42 runs in all"):
        assert expected in shown.out
    answer = parse(command("plan", tiny_yaml, "--json").out)
    assert {one["design"]: one["runs"] for one in answer["designs"]} == {
        "reference": 2, "fit": 20, "heldout": 12, "left_out": 8,
    }  # fmt: skip
    assert answer["identity"] == load(str(tiny_yaml)).identity()
    assert list(tmp_path.iterdir()) == [tiny_yaml]


def test_a_sample_has_a_folder_of_its_own(
    command: Command, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = parse(command("plan", tiny_yaml, "--sample", "0.5", "--json").out)
    assert answer["folder"] == str(tmp_path / "runs" / "tiny-sample-0.5")
    assert {one["design"]: one["runs"] for one in answer["designs"]}["fit"] == 10


def test_status_json_counts(command: Command, finished_sweep: Path) -> None:
    answer = parse(command("status", finished_sweep, "--json").out)
    assert (answer["done"], answer["failed"], answer["pending"]) == (42, 0, 0)
    assert answer["running"] is answer["rate"] is answer["seconds_left"] is None
    assert answer["attributions"] == ["difference_in_means", "random", "tracin"]


def test_status_while_another_is_writing(command: Command, sweep_copy: Path) -> None:
    with RunStore.open(SweepPaths(sweep_copy), write=True):
        answer = parse(command("status", sweep_copy, "--json").out)
        shown = command("status", sweep_copy).out
    assert answer["running"]["pid"] == os.getpid()
    assert f"running: process {os.getpid()}" in shown


def test_score_json_has_no_nan(command: Command, sweep_copy: Path) -> None:
    rows = parse(command("score", sweep_copy, "--json").out)
    assert [row["estimator"] for row in rows if row["metric"] == "lds"] == ["random", "tracin", "difference_in_means"]
    assert all(row["ceiling"] is None for row in rows if row["metric"] == "loo_correlation") or rows


def test_an_array_equal_to_a_stored_attribution_is_judged_the_same(
    command: Command, finished_sweep: Path, tmp_path: Path
) -> None:
    values = read_attribution(SweepPaths(finished_sweep), "tracin").values
    np.save(tmp_path / "mine.npy", values)
    before = contents(finished_sweep)
    mine = parse(command("score", finished_sweep, "--attributions", tmp_path / "mine.npy", "--json").out)
    assert contents(finished_sweep) == before
    stored = pd.read_parquet(finished_sweep / "scores.parquet").query("estimator == 'tracin'")
    assert [row["estimator"] for row in mine] == ["mine", "mine"]
    for row, (_, other) in zip(mine, stored.iterrows(), strict=True):
        for key in ("metric", "value", "low", "high", "measure", "design", "queries", "subsets", "seeds"):
            assert row[key] == other[key], key


def test_an_array_is_judged_by_the_measure_named(command: Command, finished_sweep: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", read_attribution(SweepPaths(finished_sweep), "tracin").values)
    judge = ("score", finished_sweep, "--attributions", tmp_path / "mine.npy", "--json", "--measure")
    margin, loss = (parse(command(*judge, measure).out)[0] for measure in ("margin", "loss"))
    assert (margin["measure"], loss["measure"]) == ("margin", "loss")
    # What raises the margin lowers the loss; the sign is not flipped for anybody.
    assert margin["value"] * loss["value"] < 0


def test_export_to_parquet_is_the_store(command: Command, finished_sweep: Path, tmp_path: Path) -> None:
    assert "42 rows" in command("export", finished_sweep, "--to", tmp_path / "runs.parquet").out
    table = pd.read_parquet(tmp_path / "runs.parquet")
    with RunStore.open(SweepPaths(finished_sweep)) as store:
        for design, rows in table.groupby("design"):
            name = str(design)
            masks = np.zeros((len(rows), store.n), dtype=bool)
            for mask, examples in zip(masks, rows.examples, strict=True):
                mask[examples] = True
            assert np.array_equal(masks, store.masks(name))
            assert np.array_equal(rows.seed, store.seeds(name))
            assert np.array_equal(rows.subset, store.subsets(name))
            assert np.array_equal(rows.repeat, store.repeats(name))
            assert set(rows.state) == {"done"}
            for measure in store.measures:
                assert np.array_equal(np.stack(list(rows[measure])), store.outputs(name, measure))


def test_export_to_npz_is_the_store(command: Command, finished_sweep: Path, tmp_path: Path) -> None:
    assert command("export", finished_sweep, "--to", tmp_path / "runs.npz").code == 0
    with np.load(tmp_path / "runs.npz") as arrays, RunStore.open(SweepPaths(finished_sweep)) as store:
        for name in store.designs:
            for what in ("masks", "seeds", "subsets", "repeats", "states"):
                assert np.array_equal(arrays[f"{name}/{what}"], getattr(store, what)(name))
            for measure in store.measures:
                assert np.array_equal(arrays[f"{name}/outputs/{measure}"], store.outputs(name, measure))
        for label in list_attributions(SweepPaths(finished_sweep)):
            assert np.array_equal(
                arrays[f"attributions/{label}"], read_attribution(SweepPaths(finished_sweep), label).values
            )
        assert len(arrays.files) == 4 * 7 + 3


def test_verify_finds_all_well_and_trains_some_again(command: Command, ray_started: None, finished_sweep: Path) -> None:
    answer = parse(command("verify", finished_sweep, "--rerun", "3", "--json").out)
    assert answer["damages"] == []
    assert [one["equal"] for one in answer["reruns"]] == [True] * 3
    shown = command("verify", finished_sweep)
    assert (shown.code, "all 42 finished rows agree" in shown.out) == (0, True)


def test_damage_is_found_named_and_trained_again(
    command: Command, ray_started: None, sweep_copy: Path, finished_sweep: Path, tiny_yaml: Path
) -> None:
    chunk = sweep_copy / "runs.zarr/fit/outputs/margin/c.1.0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    found = command("verify", sweep_copy, "--json")
    assert found.code == 1
    assert {(one["design"], one["pack"], one["path"]) for one in parse(found.out)["damages"]} == {
        ("fit", 1, str(chunk))
    }
    mended = command("run", tiny_yaml, "--out", sweep_copy)
    assert mended.code == 0
    assert f"damaged, will be trained again: fit pack 1 (outputs; rows 8, 9, 10, 11, 12, ...): {chunk}" in mended.err
    assert "8 runs to train" in mended.err
    assert np.array_equal(outputs(sweep_copy, "fit"), outputs(finished_sweep, "fit"))
    assert command("verify", sweep_copy).code == 0


def test_init_writes_a_configuration_that_plans(command: Command, refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert f"counterfactory run {path}" in command("init", path).out
    assert path.read_text().startswith("# ")
    assert load(str(path)).name == "mine"
    assert command("plan", path).code == 0
    before = path.read_text()
    assert "exists already" in refused("init", path)
    assert path.read_text() == before


def test_schema_prints_json(command: Command) -> None:
    assert parse(command("schema").out)["title"] == "counterfactory sweep"


def test_configs_lists_what_ships_in_columns(command: Command) -> None:
    lines = command("configs").out.splitlines()
    start = next(line for line in lines if line.startswith("digits ")).index("Handwritten digits")
    firsts = [line[:start].strip() for line in lines]
    assert [name for name in firsts if name] == sorted(shipped()), "a name is never cut, nor on two lines"
    assert all(line[start] != " " for line in lines), "what follows a name stays in its column"
    for path in shipped().values():
        assert description(path).split()[0] in command("configs").out


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "plan",
        "retrain",
        "attribute",
        "score",
        "report",
        "status",
        "verify",
        "export",
        "init",
        "schema",
        "list",
        "describe",
    ],
)
def test_every_command_explains_itself(command: Command, name: str) -> None:
    shown = command(name, "--help")
    assert shown.code == 0
    assert len(shown.out) > 150
    if name in {"list", "describe", "run", "plan", "score", "status", "verify"}:
        assert "--json" in shown.out


# Growing


def test_a_grown_design_keeps_its_first_rows_bit_by_bit(
    command: Command, ray_started: None, sweep_copy: Path, tiny_yaml: Path
) -> None:
    before = outputs(sweep_copy, "fit")
    others = {design: outputs(sweep_copy, design) for design in ("reference", "heldout", "left_out")}
    grown = command("run", tiny_yaml, "designs.fit.subsets=30", "--out", sweep_copy)
    assert grown.code == 0
    assert "10 runs to train" in grown.err
    after = outputs(sweep_copy, "fit")
    assert after.shape == (2, 30, 8)
    assert np.array_equal(after[:, :20], before)
    assert np.isfinite(after).all()
    for design, kept in others.items():
        assert np.array_equal(outputs(sweep_copy, design), kept)
    assert "attributed random (from 0 models, kept)" in grown.err or "attributed random (kept)" in grown.err
    assert "attributed difference_in_means (from 30 models," in grown.err, "there are more runs to attribute from"
    assert command("verify", sweep_copy).code == 0


def test_a_design_cannot_shrink(refused: Refused, sweep_copy: Path, tiny_yaml: Path) -> None:
    before = contents(sweep_copy)
    said = refused("run", tiny_yaml, "designs.fit.subsets=10", "designs.heldout.subsets=9", "--out", sweep_copy)
    assert said.endswith("designs.fit has 20 runs, the configuration asks for 10; a design can grow but not shrink")
    assert contents(sweep_copy) == before, "not even the design that grows"


# Interrupted, failed


def test_a_driver_killed_between_configuration_and_store_can_be_run_again(
    tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inline_pool: Any
) -> None:
    sweep = Sweep.of(load(str(tiny_yaml)), tmp_path / "sweep")

    def killed(*arguments: object, **options: object) -> RunStore:
        raise SystemError

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "create", killed)
        with pytest.raises(SystemError):
            prepare(sweep)
    assert (sweep.paths.config.exists(), sweep.paths.runs.exists()) == (True, False)
    other = Sweep.of(load(str(tiny_yaml), [("seed", 1)]), sweep.paths.root)
    with pytest.raises(StoreError, match="was made from another configuration"):
        prepare(other)
    with prepare(sweep) as store:
        assert retrain(sweep, store, pool=inline_pool(sweep)).done == 42


def test_ctrl_c_outside_the_training_says_how_to_go_on(
    command: Command, sweep_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session.attributing, "attribute", interrupted)
    ended = command("attribute", sweep_copy)
    assert (ended.code, ended.out) == (130, "")
    assert ended.err == "interrupted; the same command goes on from here\n"


def test_ctrl_c_in_the_training_commits_says_how_to_go_on_and_goes_on(
    command: Command, tiny_yaml: Path, tmp_path: Path, inline_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sweep"
    prepare(Sweep.of(load(str(tiny_yaml)), folder)).close()
    really = retraining.retrain

    def interrupting(sweep: Sweep, store: RunStore, watch: Watch, **options: Any) -> Any:
        def commit(design: str, done: int, failed: int) -> None:
            watch.on_commit(design, done, failed)
            os.kill(os.getpid(), 2)

        return really(sweep, store, replace(watch, on_commit=commit), pool=inline_pool(sweep, slots=1), **options)

    with monkeypatch.context() as patch:
        patch.setattr(session.retraining, "retrain", interrupting)
        ended = command("retrain", folder)
    assert ended.code == 130
    assert "stopping: waiting up to 30 s for packs in flight" in ended.err
    assert ended.err.endswith("runs to go; the same command goes on from here\n")
    counts = parse(command("status", folder, "--json").out)
    assert 0 < counts["done"] < 42
    assert counts["pending"] == 42 - counts["done"]
    assert counts["running"] is None, "the lease was given back"
    patched = lambda sweep, store, watch, **options: really(sweep, store, watch, pool=inline_pool(sweep), **options)  # noqa: E731
    monkeypatch.setattr(session.retraining, "retrain", patched)
    assert f"{counts['pending']} runs to train" in command("retrain", folder).err


def test_when_every_run_fails_it_is_said_in_two_lines(
    command: Command, tiny: Raw, tmp_path: Path, ray_started: None
) -> None:
    (tmp_path / "box.py").write_text(
        "class Box:\n    n, t, measures = 60, 2, ('m',)\n"
        "    def train(self, subset, seed): raise ValueError('no [luck]')\n    def measure(self, model): ...\n"
    )
    tiny |= {"task": {"name": "box.py:Box"}, "measures": ["m"], "estimators": {"random": {}}, "pack": 32}
    tiny["designs"]["fit"]["subsets"] = 70
    path = tmp_path / "failing.yaml"
    path.write_text(yaml.safe_dump(tiny))
    ended = command("run", path, "--out", tmp_path / "sweep")
    assert ended.code == 1
    assert "runs failed, the first with ValueError: no [luck]" in ended.err
    assert "Traceback" not in ended.err
    status = parse(command("status", tmp_path / "sweep", "--json").out)
    assert status["failed"] >= 50
    assert any("ValueError: no [luck]" in line for line in status["failures"])


def test_a_fault_that_is_not_the_users_is_one_line_and_exit_code_1(
    command: Command, sweep_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise CounterfactoryError("estimators.mine: returned shape (1,), expected (60, 8)")

    monkeypatch.setattr(session.attributing, "attribute", fail)
    ended = command("attribute", sweep_copy)
    assert (ended.code, ended.err) == (1, "failed: estimators.mine: returned shape (1,), expected (60, 8)\n")


# Bad input: one line on stderr, exit code 2, nothing written


MISTAKES = [
    ("desings={}", "override 'desings': unknown key 'desings': did you mean designs?"),
    ("seed=x", "override 'seed': seed: input should be a valid integer"),
    ("designs.fit.alpha=1.5", "override 'designs.fit.alpha': designs.fit.alpha: input should be less than 1 (found 1.5)"),
    ("designs.fit.alpha=0", "override 'designs.fit.alpha': designs.fit.alpha: input should be greater than 0 (found 0)"),
    ("designs.fit.alpha=0.001", "designs.fit.alpha: 0.001 of 60 examples is a subset of 0; expected between 1 and 59"),
    ("designs.fit.alpha=0.999", "designs.fit.alpha: 0.999 of 60 examples is a subset of 60; expected between 1 and 59"),
    ("task.name=digts", "unknown task 'digts': did you mean digits?"),
    ("task.name=mine.py:Task", "there is no file "),
    ("task.arguments.modle=mlp", "task digits: wrong arguments, got an unexpected keyword argument 'modle': did you mean model?"),
    ("task.arguments.n=100000", "n = 100000 training examples and t = 8 queries do not fit into 1797 examples"),
    ("designs.fit.kind=subset", "override 'designs.fit.kind': designs.fit.kind: unknown kind 'subset': did you mean subsets?"),
    ("estimators.trakk={}", "override 'estimators.trakk': estimators.trakk: unknown estimator 'trakk': did you mean trak"),
    ("measures=[margn]", "unknown measure 'margn' of Digits: did you mean margin"),
    ("estimators.tracin.measure=correct", "override 'estimators.tracin.measure': estimators.tracin.measure: 'correct' is not"),
    ("queries.indices=[3, 8]", "queries.indices: query index 8 is out of range: expected 0..7"),
    ("queries.indices=0:100", "queries.indices: query index 8 is out of range: expected 0..7 (92 outside)"),
    ("designs.reference.checkpoints=[50]", "designs.reference.checkpoints: 50 is not an epoch of the recipe; expected 0 to 3"),
    ("estimators.difference_in_means.design=fot", "estimators.difference_in_means.design: fitting design 'fot' does not exist"),
    ("seed", "override 'seed': expected key.sub=value"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "said"), MISTAKES)
@pytest.mark.parametrize("name", ["run", "plan"])
def test_a_mistaken_configuration_is_refused(
    refused: Refused, tiny_yaml: Path, tmp_path: Path, name: str, override: str, said: str
) -> None:
    line = refused(name, tiny_yaml, override, "--out", tmp_path / "sweep")
    assert line.removeprefix("error: ").removeprefix(f"{tmp_path}/").startswith(said)
    assert list(tmp_path.iterdir()) == [tiny_yaml]


def test_a_task_that_lacks_a_method_is_refused(refused: Refused, tiny: Raw, tmp_path: Path) -> None:
    (tmp_path / "box.py").write_text("class Box:\n    n, t = 60, 2\n    def train(self, subset, seed): ...\n")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**tiny, "task": {"name": "box.py:Box"}, "measures": ["m"]}))
    line = refused("run", path, "--out", tmp_path / "sweep")
    assert "box.py:Box" in line
    assert "measure" in line
    assert not (tmp_path / "sweep").exists()


def test_a_missing_configuration_is_refused(refused: Refused) -> None:
    assert "no configuration file 'digit', and none that ships has that name: did you mean digits" in refused(
        "run", "digit"
    )


def test_a_folder_that_is_no_sweep_is_refused(refused: Refused, tmp_path: Path) -> None:
    for name in ("retrain", "attribute", "score", "report", "status", "verify"):
        assert "is not a sweep (it has no config.yaml); `counterfactory run` makes one" in refused(name, tmp_path)
        assert "is not a sweep" in refused(name, tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_configuration_is_refused(refused: Refused, sweep_copy: Path) -> None:
    for content in ("a: [1", "", "- 1", "name: x"):
        (sweep_copy / "config.yaml").write_text(content)
        assert str(sweep_copy / "config.yaml") in refused("status", sweep_copy)


READING = ("status", "verify", "export", "score", "report", "attribute")


def spoil(folder: Path, how: str) -> None:
    """Make the store of a sweep one that cannot be read."""
    metadata = folder / "runs.zarr" / "zarr.json"
    if how == "newer":
        root = json.loads(metadata.read_text())
        root["attributes"]["format_version"] = 99
        metadata.write_text(json.dumps(root))
    elif how == "foreign":
        root = json.loads(metadata.read_text())
        root["attributes"] = {}
        metadata.write_text(json.dumps(root))
    elif how == "damaged":
        metadata.write_text(metadata.read_text()[:-20])
    else:
        shutil.rmtree(folder / "runs.zarr")


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("newer", "has format version 99, this counterfactory reads up to version 2: upgrade it"),
        ("foreign", "is not a run store of counterfactory: its attributes name no format and version"),
        ("damaged", "runs.zarr"),
        ("absent", "runs.zarr"),
    ],
)
def test_a_store_that_cannot_be_read_is_refused(
    refused: Refused, sweep_copy: Path, tmp_path: Path, name: str, how: str, said: str
) -> None:
    spoil(sweep_copy, how)
    before = contents(sweep_copy)
    line = refused(name, sweep_copy, *(("--to", tmp_path / "runs.npz") if name == "export" else ()))
    assert said in line
    assert str(sweep_copy) in line
    assert contents(sweep_copy) == before
    assert not (tmp_path / "runs.npz").exists()


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=1", "seed is 1 here and 0 there"),
        ("designs.fit.alpha=0.4", "designs.fit.alpha is 0.4 here and 0.5 there"),
        ("task.arguments.recipe.epochs=4", "task.arguments.recipe.epochs is 4 here and 3 there"),
        ("measures=[margin]", "measures is ['margin'] here and ['margin', 'loss'] there"),
        (
            "task={name: characters, arguments: {path: none.txt}}",
            "task.name is 'characters' here and 'digits' there",
        ),
        ("designs.more={kind: full}", "designs.more.checkpoints is 'last' here and 'absent' there"),
    ],
)
def test_a_folder_of_another_configuration_is_refused(
    refused: Refused, sweep_copy: Path, tiny_yaml: Path, override: str, key: str
) -> None:
    before = contents(sweep_copy)
    line = refused("run", tiny_yaml, override, "--out", sweep_copy)
    assert (
        f"{sweep_copy}: was made from another configuration ({key}); choose another --out, or delete the folder" in line
    )
    assert contents(sweep_copy) == before


def test_other_estimators_over_the_same_runs_are_welcome(command: Command, sweep_copy: Path, tiny_yaml: Path) -> None:
    ended = command("run", tiny_yaml, "estimators.similarity={}", "estimators.tracin.measure=loss", "--out", sweep_copy)
    assert ended.code == 0
    assert "runs to train" not in ended.err
    assert "attributed random (kept)" in ended.err
    assert not re.search(r"(similarity|tracin) \(.*kept\)", ended.err)


def test_data_that_changed_under_a_sweep_is_refused(
    refused: Refused, sweep_copy: Path, tiny_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sweep, "data_hash", lambda self: "0123456789abcdef")
    said = refused("run", tiny_yaml, "--out", sweep_copy)
    assert "what decides its runs has changed since they were made (data: " in said
    assert (
        "-> 0123456789abcdef); put it back, choose another --out, or go on all the same with --accept-changes" in said
    )


def test_a_mask_file_that_changed_under_a_sweep_is_refused(tiny: Raw, make_sweep: Any, inline_pool: Any) -> None:
    tiny["designs"]["mine"] = {"kind": "explicit", "masks": "masks.npy"}
    sweep = make_sweep(tiny)
    masks = np.random.default_rng(0).random((10, 60)) < 0.5
    np.save(sweep.config.folder / "masks.npy", masks)
    prepare(sweep).close()
    np.save(sweep.config.folder / "masks.npy", ~masks)
    os.utime(sweep.config.folder / "masks.npy", ns=(0, 0))
    again = make_sweep(tiny)
    with (
        prepare(again) as store,
        pytest.raises(StoreError, match=r"designs\.mine has other subsets than when it was planned"),
    ):
        retrain(again, store, pool=inline_pool(again))


@pytest.mark.parametrize("name", ["run", "retrain", "attribute", "score", "report"])
def test_a_folder_that_another_process_writes_is_refused(
    refused: Refused, sweep_copy: Path, tiny_yaml: Path, name: str
) -> None:
    before = contents(sweep_copy)
    with RunStore.open(SweepPaths(sweep_copy), write=True):
        arguments = (tiny_yaml, "--out", sweep_copy) if name == "run" else (sweep_copy,)
        line = refused(name, *arguments)
    assert f"{sweep_copy} is being written by process {os.getpid()} on " in line
    assert line.endswith("wait for it, or stop it")
    assert contents(sweep_copy) == before


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((60, 9)), "its shape is (60, 9), expected (60, 8)"),
        (np.zeros((8, 60)), "it looks transposed"),
        (np.full((60, 8), np.nan), "480 of its 480 values are NaN"),
        (np.full((60, 8), "x"), "expected real numbers"),
    ],
)
def test_an_array_that_cannot_be_judged_is_refused(
    refused: Refused, finished_sweep: Path, tmp_path: Path, values: np.ndarray, said: str
) -> None:
    np.save(tmp_path / "mine.npy", values)
    line = refused("score", finished_sweep, "--attributions", tmp_path / "mine.npy")
    assert f"{tmp_path / 'mine.npy'}: " in line
    assert said in line


def test_what_cannot_be_judged_with_is_refused(refused: Refused, finished_sweep: Path, tmp_path: Path) -> None:
    assert "no such file" in refused("score", finished_sweep, "--attributions", tmp_path / "none.npy")
    np.save(tmp_path / "mine.npy", np.zeros((60, 8)))
    judge = ("score", finished_sweep, "--attributions", tmp_path / "mine.npy")
    assert "measure 'los' is not recorded in this sweep: did you mean loss?" in refused(*judge, "--measure", "los")
    assert "--measure goes with --attributions" in refused("score", finished_sweep, "--measure", "loss")


def test_an_array_over_a_sweep_without_scoring_runs_is_refused(refused: Refused, tiny: Raw, make_sweep: Any) -> None:
    sweep = make_sweep(tiny)
    prepare(sweep).close()
    np.save(sweep.config.folder / "mine.npy", np.zeros((60, 8)))
    assert "has no finished scoring runs" in refused(
        "score", sweep.paths.root, "--attributions", sweep.config.folder / "mine.npy"
    )


def test_a_place_that_cannot_be_written_is_refused(refused: Refused, tiny_yaml: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"cannot write {tmp_path}/file/sweep/config.yaml: Not a directory" in refused(
        "run", tiny_yaml, "--out", tmp_path / "file" / "sweep"
    )
    line = f"error: {tmp_path}/file: is a file, expected a folder for the sweep; choose another --out"
    assert line in refused("run", tiny_yaml, "pack=auto", "--out", tmp_path / "file")
    assert "/proc/sweep" in refused("run", tiny_yaml, "--out", "/proc/sweep")
    assert str(tmp_path / "none" / "x.yaml") in refused("init", tmp_path / "none" / "x.yaml")


def test_no_space_is_refused_before_anything_is_written(
    refused: Refused, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Usage = namedtuple("Usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 100))
    line = refused("run", tiny_yaml, "--out", tmp_path / "sweep")
    assert "free there" in line
    assert not (tmp_path / "sweep").exists()


def test_an_export_to_nowhere_is_refused(refused: Refused, finished_sweep: Path, tmp_path: Path) -> None:
    export = ("export", finished_sweep, "--to")
    assert "expected a name that ends in .parquet or .npz" in refused(*export, tmp_path / "x.csv")
    assert "there is no folder" in refused(*export, tmp_path / "none" / "x.npz")
    (tmp_path / "taken.npz").mkdir()
    assert "cannot be written" in refused(*export, tmp_path / "taken.npz")


def test_a_sample_of_nothing_is_refused(refused: Refused, tiny_yaml: Path) -> None:
    assert "sample 0: expected a fraction above 0" in refused("plan", tiny_yaml, "--sample", "0")


def test_the_versions_are_those_installed(finished_sweep: Path) -> None:
    with RunStore.open(SweepPaths(finished_sweep)) as store:
        assert store.attributes["torch"] == version("torch")
        assert store.attributes["python"] == sys.version.split()[0]


def test_a_sample_says_where_it_writes(
    command: Any, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_sweep(*_: object, **__: object) -> None:
        raise ConfigError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orchestrator.cli.session.run_sweep", run_sweep)
    said = command("run", tiny_yaml, "--sample", 0.5).err
    assert said == f"a sample of 0.5, into {tmp_path}/runs/tiny-sample-0.5\nerror: enough\n"
    assert command("run", tiny_yaml, "--sample", 0.5, "--out", "there").err.startswith(
        f"a sample of 0.5, into {tmp_path}/there\n"
    )
    assert command("run", tiny_yaml).err == "error: enough\n"


@pytest.mark.parametrize("name", ["attribute", "status", "retrain"])
def test_a_configuration_in_a_folder_s_place_is_said(refused: Refused, tiny_yaml: Path, name: str) -> None:
    assert f"{tiny_yaml}: is a file, expected the folder of a sweep" in refused(name, tiny_yaml)
