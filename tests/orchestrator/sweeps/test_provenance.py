"""What decides runs is recorded row by row, and compared when a sweep goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import yaml_format
from orchestrator.config.schema import TaskSection
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.stages.verify import machine_changes, rerun
from orchestrator.store import accounting
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps import provenance as provenances
from orchestrator.sweeps.origin import origin_of, whose
from orchestrator.sweeps.provenance import Provenance, provenance, read_origin, read_provenance
from orchestrator.sweeps.sources import source_hashes
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError
from workers.loading import TaskSpec

Make = Callable[[], Sweep]
BOX = """
from pathlib import Path
import numpy as np
from helper import SHIFT
class Box:
    n, t = 8, 2
    def train(self, subset, seed): return len(subset) + SHIFT
    def measure(self, model): return {"size": np.full(2, 1.0 * model)}
    def fingerprint(self): return Path(__file__).with_name("data.txt").read_text()
"""


@pytest.fixture
def boxed(make_sweep: Any, tmp_path: Path) -> Make:
    """Write a task of one's own, a helper beside it and its data; return what makes its sweep, each time anew."""
    (tmp_path / "box.py").write_text(BOX)
    (tmp_path / "helper.py").write_text("SHIFT = 1\n")
    (tmp_path / "data.txt").write_text("seven")
    (tmp_path / "other.py").write_text("")

    def make(subsets: int = 4) -> Sweep:
        designs = {"fit": {"kind": "subsets", "subsets": subsets}}
        made: Sweep = make_sweep({"task": {"name": "box.py:Box"}, "measures": ["size"], "designs": designs, "pack": 4})
        return made

    return make


@pytest.fixture(autouse=True)
def fresh_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "helper", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


def trained(sweep: Sweep, inline_pool: Any, **options: Any) -> None:
    with prepare(sweep, **options) as store:
        retrain(sweep, store, pool=inline_pool(sweep))


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("box.py", BOX + "# changed\n", "source box.py: "),
        ("helper.py", "SHIFT = 2\n", "source helper.py: "),
        ("data.txt", "eight", "data: "),
    ],
)
def test_what_changed_is_named_refused_and_accepted_row_by_row(
    boxed: Make, inline_pool: Any, tmp_path: Path, file: str, text: str, what: str
) -> None:
    trained(boxed(), inline_pool)
    (tmp_path / file).write_text(text)
    with pytest.raises(StoreError, match="what decides its runs has changed since they were made") as refused:
        prepare(boxed(8))  # type: ignore[call-arg]
    assert f"({what}" in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(StoreError, match="what decides its runs has changed"), RunStore.open(boxed().paths) as store:
        rerun(boxed(), store, 1, pool=inline_pool(boxed()))
    lines: list[str] = []
    trained(boxed(8), inline_pool, accept_changes=True, say=lines.append)  # type: ignore[call-arg]
    assert f"goes on under other {what}" in lines[0]
    first, second = read_provenance(boxed().paths)
    with RunStore.open(boxed().paths) as store:
        made = accounting.made_under(store, "fit")
        assert [made[row] for row in range(8)] == [first.id] * 4 + [second.id] * 4
        again = rerun(boxed(8), store, 8, pool=inline_pool(boxed(8)))  # type: ignore[call-arg]
        assert [one.row for one in again] == [4, 5, 6, 7], "rows of another task are not compared with this one"
        assert all(one.equal for one in again)
    prepare(boxed(8)).close()  # type: ignore[call-arg]


def test_a_file_that_nobody_imports_changes_nothing(boxed: Make, inline_pool: Any, tmp_path: Path) -> None:
    trained(boxed(), inline_pool)
    (tmp_path / "other.py").write_text("anything")
    prepare(boxed()).close()
    assert len(read_provenance(boxed().paths)) == 1


def test_recipe_and_weights_are_among_what_decides(tiny: Any, make_sweep: Any) -> None:
    sweep = make_sweep(tiny)
    was = provenance(sweep)
    tiny["task"]["arguments"]["recipe"]["lr"] = 0.5
    faster = provenance(make_sweep(tiny))
    assert "recipe.lr: 0.1 -> 0.5" in [str(one) for one in was.differences(faster)]
    older = was.model_copy(update={"recipe": {key: value for key, value in was.recipe.items() if key != "accumulate"}})
    assert older.differences(was) == [], "a field that was not there yet was as its default is"
    tiny["task"]["arguments"]["recipe"].update(lr=0.1, accumulate=2)
    assert "recipe.accumulate: 1 -> 2" in [str(one) for one in older.differences(provenance(make_sweep(tiny)))]
    import torch

    weighted = make_sweep(tiny)
    weighted.task.train_weights = torch.ones(60)
    assert provenance(weighted).data != faster.data == was.data
    weighted.in_memory.data_hash = None
    before = weighted.data_hash()
    weighted.in_memory.data_hash = None
    weighted.task.train_weights[3] = 2
    assert weighted.data_hash() != before


@pytest.mark.parametrize(
    ("name", "was", "now", "refused"),
    [
        ("torch", "2.4.1", "2.4.2+cpu", False),
        ("torch", "2.4.1", "2.5.0", True),
        ("numpy", "1.26.4", "2.0.0", True),
        ("zarr", "3.0.0", "3.1.0", False),
        ("python", "3.11.1", "3.12.0", False),
    ],
)
def test_versions_of_what_computes_are_refused_from_the_minor_one_on(
    name: str, was: str, now: str, refused: bool
) -> None:
    then, here = (Provenance(configuration="c", data="d", versions={name: one}) for one in (was, now))
    (found,) = then.differences(here)
    assert (str(found), found.refused) == (f"version of {name}: {was} -> {now}", refused)


def test_another_patch_is_said_and_recorded(boxed: Make, inline_pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(boxed(), inline_pool)
    here = provenances.versions()
    monkeypatch.setattr(provenances, "versions", lambda: {**here, "zarr": "9.9.9"})
    lines: list[str] = []
    prepare(boxed(), say=lines.append).close()
    assert "version of zarr" in lines[0]
    assert len(read_provenance(boxed().paths)) == 2
    monkeypatch.undo()
    assert machine_changes(boxed()) == {"version of zarr": ("9.9.9", here["zarr"])}


def test_a_sweep_without_a_record_goes_on_only_if_that_is_accepted(boxed: Make, inline_pool: Any) -> None:
    trained(boxed(), inline_pool)
    boxed().paths.provenance.unlink()
    with pytest.raises(StoreError, match=r"keeps no provenance\.json, so nobody knows .* --accept-changes$"):
        prepare(boxed())
    prepare(boxed(), accept_changes=True).close()
    prepare(boxed()).close()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b"\xff"])
def test_a_damaged_record_is_one_line(boxed: Make, content: bytes) -> None:
    prepare(boxed()).close()
    boxed().paths.provenance.write_bytes(content)
    with pytest.raises(StoreError, match=r"provenance\.json is damaged: put it back"):
        read_provenance(boxed().paths)


def test_sources_are_followed_beside_the_file_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "package" / "deep").mkdir(parents=True)
    files = {
        "mine.py": "import a, numpy, workers\nfrom package import b\ndef later():\n    import late\n",
        "a.py": "import mine\nfrom package.deep.c import thing\n",
        "late.py": "", "workers.py": "", "unused.py": "",
        "package/__init__.py": "", "package/b.py": "from . import d\nfrom .deep import c\n",
        "package/d.py": "", "package/e.py": "", "package/deep/__init__.py": "", "package/deep/c.py": "from ..e import x",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = source_hashes(TaskSpec("mine.py:Mine", {}, str(tmp_path)))
    assert sorted(found) == sorted(set(files) - {"workers.py", "unused.py"})


def test_sources_of_a_built_in_task_are_those_of_the_tasks() -> None:
    found = source_hashes(TaskSpec("digits"))
    assert {"workers/tasks/digits.py", "workers/tasks/images.py"} <= set(found)
    assert all(name.startswith("workers/") for name in found)
    assert "workers/task.py" not in found


def test_who_made_it_cannot_be_claimed(boxed: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(boxed()).close()
    made = read_origin(boxed().paths)
    assert whose(boxed(), made) == ""
    monkeypatch.setenv("COUNTERFACTORY_CACHE", str(tmp_path / "another user"))
    line = whose(boxed(), made)
    assert "was made elsewhere (by " in line
    assert line.endswith(f"about to run the code of {tmp_path / 'box.py'}")
    assert "nobody knows by whom" in whose(boxed(), None)


def test_one_s_own_sweep_with_another_task_is_not_said_to_be_made_elsewhere(
    boxed: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(boxed()).close()
    sweep, made = boxed(), read_origin(boxed().paths)
    other = replace(sweep, config=sweep.config.model_copy(update={"task": TaskSection(name="other.py:Box")}))
    code = f"about to run the code of {tmp_path / 'other.py'}"
    assert whose(other, made) == f"{sweep.paths.root}: was made here with another task; {code}"
    moved = replace(other, paths=SweepPaths(tmp_path / "moved"))
    assert "was made elsewhere (by " in whose(moved, made)
    monkeypatch.setenv("COUNTERFACTORY_CACHE", str(tmp_path / "another user"))
    assert "was made elsewhere (by " in whose(other, made)


def test_where_the_configuration_is_counts_for_a_task_in_a_file_only(boxed: Make, tmp_path: Path) -> None:
    sweep = boxed()
    for name, said in (("box.py:Box", "was made here with another task"), ("box_module:Box", "")):
        at = [
            replace(sweep, config=sweep.config.model_copy(update={"task": TaskSection(name=name), "folder": folder}))
            for folder in (tmp_path, tmp_path / "copied")
        ]
        assert said in whose(at[1], origin_of(at[0]))
        assert (whose(at[1], origin_of(at[0])) == "") == (said == "")


def test_run_from_a_copied_page_says_that_the_sweep_is_one_s_own(
    boxed: Make, tmp_path: Path, command: Any, inline_pool: Any
) -> None:
    trained(boxed(), inline_pool)
    page = yaml_format.load(boxed().paths.config.read_text())
    for key in ("hash", "content_hash", "folder"):
        page.pop(key)
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("box.py", "helper.py", "data.txt"):
        (copied / name).write_bytes((tmp_path / name).read_bytes())
    (copied / "page.yaml").write_text(yaml_format.dump(page))
    ended = command("run", copied / "page.yaml", "--out", boxed().paths.root)
    assert ended.code == 0, ended.err
    assert f"was made here with another task; about to run the code of {copied / 'box.py'}" in ended.err


def test_an_edited_configuration_is_refused_and_can_be_accepted(command: Any, refused: Any, sweep_copy: Path) -> None:
    path = sweep_copy / "config.yaml"
    plain = yaml_format.load(path.read_text())
    plain["estimators"]["random"]["measure"] = "loss"
    path.write_text(yaml_format.dump(plain))
    for arguments in (("status",), ("report",), ("score",), ("attribute",), ("retrain",), ("verify",)):
        line = refused(*arguments, sweep_copy)
        assert f"{path}: was edited since the sweep was made" in line
        assert f"by `counterfactory attribute {sweep_copy} --accept-changes`" in line
    assert command("attribute", sweep_copy, "--accept-changes").code == 0
    assert command("status", sweep_copy).code == 0
    plain = yaml_format.load(path.read_text())
    plain["seed"] = 7
    path.write_text(yaml_format.dump(plain))
    assert "asks for other runs than runs.zarr holds" in refused("attribute", sweep_copy, "--accept-changes")


def test_runs_name_what_they_were_trained_under(finished_sweep: Path) -> None:
    sweep = Sweep.at(finished_sweep)
    (kept,) = read_provenance(sweep.paths)
    with RunStore.open(sweep.paths) as store:
        for design in store.designs:
            assert set(accounting.made_under(store, design).values()) == {kept.id}
    assert kept.data
    assert kept.recipe["epochs"] == 3
    assert all(kept.versions.values())
