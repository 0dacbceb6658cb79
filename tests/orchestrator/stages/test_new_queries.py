"""New queries of a sweep, answered from the gradients that it keeps: as in the sweep, and not one training example read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.typing import NDArray

import orchestrator
from estimators.gradient_based.projected import ProjectedEffects
from orchestrator.cli.session import before_new_queries
from orchestrator.config.loading import validate
from orchestrator.stages import attribute as attributing
from orchestrator.stages.attribute import attribute
from orchestrator.stages.new_queries import attribute_new_queries
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.store.attributions import read_attribution
from orchestrator.store.lease import Lease
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from tests.orchestrator.conftest import InlinePool
from workers.data import datasets
from workers.data.examples import Arrays
from workers.errors import UserError
from workers.tasks.splits import order

Raw = dict[str, Any]
N, T, MORE = 60, 8, 6
DIGITS: Raw = {
    "name": "kept",
    "task": {"name": "digits", "arguments": {"n": N, "t": T, "hidden": 12, "recipe": {"epochs": 3}}},
    "measures": ["margin", "loss"],
    "pack": 4,
    "designs": {"reference": {"kind": "full", "seeds": 3, "checkpoints": [1, 3]}},
    "estimators": {
        "logra": {"rank": 6, "store": True},
        "trak": {"project_dim": 40, "projection": "factored", "checkpoints": "all"},
        "tracin": {},
    },
}


def made(raw: Raw, folder: Path) -> Path:
    """Train a sweep and attribute; return its folder."""
    sweep = Sweep.of(validate({"folder": str(folder.parent), **raw}, "kept.yaml"), folder)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=InlinePool(sweep))
        assert not [one.error for one in attribute(sweep, store, before_task=lambda: "") if one.error]
    return folder


def with_options(raw: Raw, **estimators: Any) -> Raw:
    return {**raw, "estimators": estimators}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three models whose LoGra keeps its gradients; only to be read."""
    return made(DIGITS, tmp_path_factory.mktemp("kept") / "sweep")


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(kept, tmp_path / "sweep"))


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """Digits that follow the task's own queries, in a file."""
    arrays = datasets.digits()
    where = order(len(arrays["x"]), 0)[N + T : N + T + MORE]
    np.savez(tmp_path / "more.npz", x=arrays["x"][where], y=arrays["y"][where])
    return tmp_path / "more.npz"


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("float64", 1e-7)])
def test_they_get_what_they_get_in_the_sweep_itself(
    tmp_path: Path, more: Path, precision: str, tolerance: float
) -> None:
    arguments = {**DIGITS["task"]["arguments"], "recipe": {"epochs": 3, "precision": precision}}
    estimators = {
        "logra": {"rank": 6},
        "pca": {"estimator": "logra", "rank": 6, "init": "pca", "models": 2, "measure": "loss"},
        "trak": DIGITS["estimators"]["trak"],
        "dense": {"estimator": "trak", "project_dim": 30},
    }
    keeping = {name: {**options, "store": True} for name, options in estimators.items()}
    raw = {**DIGITS, "task": {"name": "digits", "arguments": arguments}}
    small = made(with_options(raw, **keeping), tmp_path / "small")
    raw["task"] = {"name": "digits", "arguments": {**arguments, "t": T + MORE}}
    large = made(with_options(raw, **estimators), tmp_path / "large")
    sweep = orchestrator.open_sweep(small)
    for name in estimators:
        sweep.attribute_queries(more, name)
        found = sweep.query_attribution("more", name)
        expected = read_attribution(SweepPaths(large), name).values[:, T:]
        atol = tolerance * float(np.abs(expected).max())
        np.testing.assert_allclose(found.values, expected, rtol=tolerance, atol=atol)
        assert found.attrs["measure"] == ("loss" if name == "pca" else "margin")
    assert sweep.query_attributions == tuple(("more", name) for name in sorted(estimators))


def test_no_training_example_is_read(folder: Path, more: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    whole = Arrays.read

    def counted(self: Arrays, indices: Any) -> Any:
        read.append(len(self))
        return whole(self, indices)

    sweep = Sweep.at(folder).with_options()
    assert sweep.task.n == N, "built, and tried on two training examples, as any task is"
    monkeypatch.setattr(Arrays, "read", counted)
    monkeypatch.setattr("orchestrator.sweeps.sweep.data_hash", lambda task: pytest.fail("all data are read"))
    check = before_new_queries(sweep, accept_changes=True)
    with RunStore.open(sweep.paths, write=True) as store:
        attribute_new_queries(sweep, store, more, before_task=check)
    assert set(read) <= {T, MORE}, "only queries are read: the task's own, to see their form, and the new ones"
    assert read.count(MORE) > 0


def test_the_command_shows_the_strongest_examples(folder: Path, more: Path, command: Any, tmp_path: Path) -> None:
    ended = command("attribute", folder, "--queries", more, "--top", 3, "--csv", tmp_path / "top.csv")
    assert ended.code == 0, ended.err
    assert "6 queries, the first 5 are shown, from 3 models" in " ".join(ended.out.split())
    values = orchestrator.open_sweep(folder).query_attribution("more", "logra").values
    table = pd.read_csv(tmp_path / "top.csv")
    assert list(table.columns) == ["query", "effect", "example", "label", "value", "text"]
    for query in range(MORE):
        for effect, sign in (("helpful", 1), ("harmful", -1)):
            part = table[(table["query"] == query) & (table["effect"] == effect)]
            order_ = np.argsort(-sign * values[:, query], kind="stable")[:3]
            assert part["example"].tolist() == order_.tolist()
            np.testing.assert_allclose(part["value"], values[order_, query], rtol=1e-6)
    labels = orchestrator.open_sweep(folder).top(0, "logra")["label"]
    assert set(table["label"].astype(str)) <= set("0123456789")
    assert labels.notna().all()


def test_as_json_by_another_measure_under_another_name(folder: Path, more: Path, command: Any) -> None:
    arguments = ("--measure", "loss", "--name", "mine", "--top", 1, "--json", "--estimator", "logra")
    ended = command("attribute", folder, "--queries", more, *arguments)
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)
    assert len(rows) == 2 * MORE
    kept = orchestrator.open_sweep(folder).query_attribution("mine", "logra")
    first = rows[0]
    assert first["effect"] == "helpful"
    assert first["example"] == int(kept.values[:, 0].argmin()), "a helpful example lowers the loss"
    assert kept.attrs["file"] == "more.npz"


def test_the_sweeps_own_attributions_and_scores_know_nothing_of_it(folder: Path, more: Path) -> None:
    sweep = orchestrator.open_sweep(folder)
    before = sweep.attributions
    sweep.attribute_queries(more)
    assert sweep.attributions == before
    with xr.open_zarr(folder / "queries.zarr", group="more/logra", consolidated=False) as dataset:
        assert dataset["values"].dims == ("example", "query")
        np.testing.assert_array_equal(dataset["values"], sweep.query_attribution("more", "logra"))
    with xr.open_zarr(folder / "gradients.zarr", group="logra/0", consolidated=False) as dataset:
        assert dataset["rows"].sizes["example"] == N
        assert dataset.attrs["identity"]["options"]["rank"] == 6
    with pytest.raises(UserError, match=r"has no attribution mor/logra: did you mean more/logra"):
        sweep.query_attribution("mor", "logra")


def victims() -> list[str]:
    arrays = ["rows/c.0.0", "rows/zarr.json", "side_0_out/c.0.0", "side_0_in/c.0.0", "side_1_in/c.0.0", "zarr.json"]
    return [f"gradients.zarr/logra/{number}/{name}" for number in (0, 2) for name in arrays]


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
@pytest.mark.parametrize("victim", victims())
def test_damage_is_one_line_and_is_mended(folder: Path, more: Path, refused: Any, victim: str, how: str) -> None:
    path = folder / victim
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "cut":
        os.truncate(path, len(content) // 2)
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    line = refused("attribute", folder, "--queries", more)
    assert str(path) in line
    assert line.endswith(f"remove {folder}/gradients.zarr/logra, and `counterfactory attribute {folder}` makes it anew")
    shutil.rmtree(folder / "gradients.zarr/logra")
    line = refused("attribute", folder, "--queries", more)
    assert line.endswith(f"{folder}: keeps no gradients of logra yet: `counterfactory attribute {folder}` makes them")


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the networks whose training examples were looked at."""
    from estimators.gradient_based.logra import LograEffects

    seen: list[int] = []
    side = LograEffects.training_side
    monkeypatch.setattr(
        LograEffects, "training_side", lambda self, model, number: seen.append(number) or side(self, model, number)
    )
    return seen


def test_attribute_makes_what_is_gone_damaged_or_of_other_options(
    folder: Path, more: Path, command: Any, sides: list[int]
) -> None:
    assert "(from 3 models, kept)" in command("attribute", folder).err
    assert sides == []
    before = orchestrator.open_sweep(folder).attribute_queries(more)
    shutil.rmtree(folder / "gradients.zarr/logra/1")
    assert "is stale: its gradients are not kept" in command("attribute", folder).err.replace("\n", " ")
    assert sides == [1], "the others are there"
    os.truncate(folder / "gradients.zarr/logra/2/rows/c.0.0", 9)
    shutil.rmtree(folder / "gradients.zarr/logra/0")
    ended = command("attribute", folder)
    assert "c.0.0 is damaged: it is not what was written: it is computed anew" in ended.err.replace("\n", " ")
    assert sides == [1, 0, 2]
    pd.testing.assert_frame_equal(orchestrator.open_sweep(folder).attribute_queries(more), before)
    command("attribute", folder, "--again")
    assert sides == [1, 0, 2, 0, 1, 2]


def test_one_that_was_killed_while_it_wrote_goes_on(
    tmp_path: Path, more: Path, command: Any, refused: Any, sides: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, raw = tmp_path / "sweep", with_options(DIGITS, logra=DIGITS["estimators"]["logra"])
    sweep = Sweep.of(validate({"folder": str(folder.parent), **raw}, "kept.yaml"), folder)
    steps = [0]

    def killed(folder_: Path) -> None:
        if "logra" in str(folder_):
            steps[0] += 1
            if steps[0] == 2:
                raise KeyboardInterrupt

    with prepare(sweep) as store:
        retrain(sweep, store, pool=InlinePool(sweep))
        with monkeypatch.context() as patch:
            patch.setattr("orchestrator.store.durable.sync_tree", killed)
            with pytest.raises(KeyboardInterrupt):
                attribute(sweep, store, before_task=lambda: "")
    assert sides == [0, 1]
    line = refused("attribute", folder, "--queries", more)
    assert line.endswith(
        f"gradients of 1 reference networks are kept, expected more: `counterfactory attribute {folder}` makes the rest"
    )
    assert command("attribute", folder).code == 0
    assert sides == [0, 1, 1, 2], "what was kept stays"
    assert command("attribute", folder, "--queries", more).code == 0


def test_gradients_of_another_projection_are_refused(folder: Path, more: Path, refused: Any, rewrite: Any) -> None:
    rewrite(folder, estimators={"logra": {"estimator": "logra", "rank": 5, "store": True}})
    line = refused("attribute", folder, "--queries", more)
    assert "reference network 0 are kept of something else: options.rank is 6, expected 5" in line
    assert f"`counterfactory attribute {folder}` makes it anew" in line


def test_estimators_of_several_numbers_of_models_share_what_is_kept(
    tmp_path: Path, more: Path, sides: list[int]
) -> None:
    folder = made(with_options(DIGITS, logra={"rank": 6, "store": True, "models": [1, 3]}), tmp_path / "sweep")
    assert sides == [0, 1, 2]
    assert [one.name for one in (folder / "gradients.zarr").iterdir() if one.is_dir()] == ["logra_1"]
    sweep = orchestrator.open_sweep(folder)
    one, three = (sweep.attribute_queries(more, f"logra_{count}", k=2) for count in (1, 3))
    assert (one.attrs["estimator"], three.attrs["estimator"]) == ("logra_1", "logra_3")
    assert sweep.query_attribution("more", "logra_3").attrs["models"] == 3
    with pytest.raises(UserError, match="several keep their gradients, name one: logra_1, logra_3"):
        sweep.attribute_queries(more)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--estimator", "logro"), "has no estimator 'logro': did you mean logra"),
        (
            ("--estimator", "tracin"),
            "'tracin' cannot keep gradients, so it answers no new queries; those that can: logra, trak",
        ),
        (
            ("--estimator", "trak"),
            "keeps no gradients of trak: `counterfactory run CONFIG estimators.trak.store=true --out ",
        ),
        (("--measure", "margn"), "measure 'margn' is not one of this task's: did you mean margin"),
        (("--measure", "correct"), "measure 'correct' has no gradient"),
        (("--name", "a/b"), "--name: 'a/b' cannot name a folder"),
        (("--again",), "--again computes the sweep's own attributions: leave it out with --queries"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_line(folder: Path, more: Path, refused: Any, arguments: tuple[str, ...], line: str) -> None:
    assert line in refused("attribute", folder, "--queries", more, *arguments)
    assert not (folder / "queries.zarr").exists()


@pytest.mark.parametrize("option", ["--top", "--estimator", "--measure", "--name", "--csv"])
def test_options_of_new_queries_go_with_them(folder: Path, refused: Any, option: str) -> None:
    assert refused("attribute", folder, option, "1").endswith(f"{option} goes with --queries FILE")


def arrays(**changed: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {"x": np.zeros((3, 8, 8)), "y": np.array([1, 2, 3]), **changed}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (arrays(x=np.zeros((3, 7, 8))), r"x is float64 (3, 7, 8), expected images of shape (q, 8, 8)"),
        (arrays(y=np.array([1, 2])), "y must be 3 classes from 0 to 9, at least one, found int64 (2,)"),
        (arrays(y=np.array([1, 2, 10])), "y must be 3 classes from 0 to 9"),
        (arrays(x=np.full((3, 8, 8), np.nan)), "queries.inputs has numbers that are not finite"),
        ({"images": np.zeros(3)}, "expected `x`, `y`, found `images`"),
    ],
)
def test_files_that_hold_no_queries_are_one_line(
    folder: Path, tmp_path: Path, refused: Any, content: dict[str, NDArray[Any]], line: str
) -> None:
    np.savez(tmp_path / "bad.npz", **content)
    assert line in refused("attribute", folder, "--queries", tmp_path / "bad.npz")


def test_no_file_and_a_broken_one_are_one_line(folder: Path, tmp_path: Path, refused: Any) -> None:
    assert "there is no such file of queries" in refused("attribute", folder, "--queries", tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    assert "bad.npz cannot be read as an .npz of arrays" in refused(
        "attribute", folder, "--queries", tmp_path / "bad.npz"
    )


def test_it_is_written_under_the_lease_and_replaces_an_earlier_one(
    folder: Path, more: Path, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = orchestrator.open_sweep(folder)
    sweep.attribute_queries(more)
    first = sweep.query_attribution("more", "logra").values
    lease = Lease(SweepPaths(folder))
    assert "is being written by process" in refused("attribute", folder, "--queries", more)
    lease.release()
    whole = ProjectedEffects.scaled
    monkeypatch.setattr(ProjectedEffects, "scaled", lambda self, *rest: 2 * whole(self, *rest))
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.store.durable.sync_tree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sweep.attribute_queries(more)
    np.testing.assert_array_equal(sweep.query_attribution("more", "logra").values, first)
    sweep.attribute_queries(more)
    np.testing.assert_allclose(sweep.query_attribution("more", "logra").values, 2 * first, rtol=1e-6)


@pytest.mark.parametrize("how", ["cut", "edited"])
def test_a_damaged_answer_is_one_line(folder: Path, more: Path, how: str) -> None:
    sweep = orchestrator.open_sweep(folder)
    sweep.attribute_queries(more)
    path = folder / "queries.zarr/more/logra"
    if how == "cut":
        os.truncate(path / "values/c.0.0", 20)
    else:
        plain = json.loads((path / "zarr.json").read_text())
        plain["attributes"]["content_hash"] = "0" * 32
        (path / "zarr.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match=f"{path}.* is damaged") as caught:
        sweep.query_attribution("more", "logra")
    assert "\n" not in str(caught.value)


LOOP = """
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

class Loop:
    n, t = 40, 5

    def __init__(self):
        self.x = torch.randn(45, 3, generator=torch.Generator().manual_seed(0))
        self.y = (self.x[:, 0] > 0).long()

    def module(self):
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))

    def train(self, subset, seed, keep):
        module = self.module()
        optimizer = torch.optim.SGD(module.parameters(), 0.2)
        for _ in range(20):
            optimizer.zero_grad()
            F.cross_entropy(module(self.x[subset]), self.y[subset]).backward()
            optimizer.step()
        return module

    def batch(self, source, indices):
        # Two of them are what any task's batch is tried on when it is loaded.
        assert source != "train" or not FORBIDDEN or len(indices) <= 2, "training examples are read"
        rows = torch.as_tensor(indices) + (self.n if source == "task" else 0)
        return {"x": self.x[rows], "y": self.y[rows]}

    def loss(self, module, batch):
        return F.cross_entropy(module(batch["x"]), batch["y"], reduction="none")

    @property
    def measures(self):
        return {"loss": self.loss}

    def show(self, source, index):
        return f"{source} {index}: " + " ".join("+" if one > 0 else "-" for one in self.x[index])
"""
HOOK = """
    def read_queries(self, path):
        rows = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.float32))
        return {"x": rows[:, :3], "y": rows[:, 3].long()}
"""


@pytest.mark.parametrize("hook", [False, True])
def test_level_three(tmp_path: Path, hook: bool, refused: Callable[..., str], command: Any) -> None:
    file = tmp_path / "loop.py"
    file.write_text("FORBIDDEN = False\n" + LOOP + (HOOK if hook else ""))
    raw = {
        "name": "loop",
        "task": {"name": f"{file}:Loop"},
        "measures": ["loss"],
        "pack": 4,
        "designs": {"reference": {"kind": "full", "seeds": 2, "checkpoints": [1]}},
        "estimators": {"logra": {"rank": 3, "store": True}},
    }
    folder = made(raw, tmp_path / "sweep")
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.savez(tmp_path / "new.npz", x=x, y=np.array([0, 1, 0, 1]))
    np.savetxt(tmp_path / "new.csv", np.c_[x, [0, 1, 0, 1]], delimiter=",")
    file.write_text(file.read_text().replace("FORBIDDEN = False", "FORBIDDEN = True"))
    queries, arguments = (
        tmp_path / ("new.csv" if hook else "new.npz"),
        ("--accept-changes", "--csv", tmp_path / "top.csv"),
    )
    ended = command("attribute", folder, "--queries", queries, *arguments)
    assert ended.code == 0, ended.err
    table = pd.read_csv(StringIO((tmp_path / "top.csv").read_text()))
    assert table["text"].str.startswith("train ").all(), "the examples' texts, as the report shows them"
    assert orchestrator.open_sweep(folder).query_attribution("new", "logra").shape == (40, 4)
    if not hook:
        line = refused("attribute", folder, "--queries", tmp_path / "new.csv", "--accept-changes")
        assert (
            "reads new queries from an .npz with `x`, `y`; for other files it needs a method read_queries(path)" in line
        )


def test_a_changed_source_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "loop.py").write_text("FORBIDDEN = False\n" + LOOP)
    raw = {
        "name": "loop",
        "task": {"name": f"{tmp_path / 'loop.py'}:Loop"},
        "measures": ["loss"],
        "pack": 4,
        "designs": {"reference": {"kind": "full", "checkpoints": [1]}},
        "estimators": {"logra": {"rank": 3, "store": True}},
    }
    folder = made(raw, tmp_path / "sweep")
    np.savez(tmp_path / "new.npz", x=np.zeros((1, 3), np.float32), y=np.array([0]))
    (tmp_path / "loop.py").write_text("FORBIDDEN = False\n" + LOOP + "\n    more = 1\n")
    assert "source loop.py" in refused("attribute", folder, "--queries", tmp_path / "new.npz")


def test_other_training_data_are_another_store(folder: Path, monkeypatch: pytest.MonkeyPatch, sides: list[int]) -> None:
    """Data that changed and were accepted: the checkpoints are the same, the gradients are not."""
    sweep = Sweep.at(folder).with_options()
    monkeypatch.setattr("orchestrator.sweeps.sweep.data_hash", lambda task: "another")
    with RunStore.open(sweep.paths, write=True) as store:
        shutil.rmtree(folder / "gradients.zarr/logra/0")
        assert attributing.attribute(sweep, store, before_task=lambda: "")
    assert sides == [0, 1, 2]
